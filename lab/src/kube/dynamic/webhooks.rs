//! Webhooks: what becomes of a request when one that it is to be sent to cannot be reached. One whose pods are ready lets
//! everything through as it is: what they would answer is not known here.
use serde_json::{Value, json};

use super::{Attributes, GROUP, matching, policies};
use crate::kube::store::{Failure, Store};
use crate::kube::text::{arr, s};

/// Calls the webhooks of all configurations of a resource.
pub(super) fn call(store: &Store, resource: &str, a: &Attributes<'_>) -> Result<(), Failure> {
    for config in matching::named(store, &format!("{resource}.{GROUP}")) {
        for hook in arr(config, "/webhooks") {
            if !matching::webhook(store, hook, a) {
                continue;
            }
            let fails = hook["failurePolicy"] != "Ignore";
            let wanted = match arr(hook, "/matchConditions") {
                [] => Ok(true),
                _ => policies::met(&hook["matchConditions"], &a.scope(store, None)),
            };
            match wanted {
                Ok(false) => continue,
                // conditions that cannot be told skip the webhook, or refuse the request
                Err(_) if !fails => continue,
                Err(why) => return Err(Failure::forbidden(a.kind, a.shown(), &why)),
                Ok(true) => {}
            }
            if let Some(why) = unreachable(store, hook).filter(|_| fails) {
                return Err(failed(s(hook, "/name"), &why));
            }
        }
    }
    Ok(())
}

fn failed(hook: &str, why: &str) -> Failure {
    let text = format!("failed calling webhook {hook:?}: failed to call webhook: {why}");
    let mut f = Failure::new(500, "InternalError", format!("Internal error occurred: {text}"));
    f.details = Some(json!({"causes": [{"message": text}]}));
    f
}

/// Why a webhook cannot be reached, in the words of Go's client.
fn unreachable(store: &Store, hook: &Value) -> Option<String> {
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10);
    let client = &hook["clientConfig"];
    let service = &client["service"];
    if service.is_object() {
        let (ns, name) = (s(service, "/namespace"), s(service, "/name"));
        let (path, port) = (s(service, "/path").trim_start_matches('/'), service["port"].as_u64().unwrap_or(443));
        let url = format!("https://{name}.{ns}.svc:{port}/{path}?timeout={seconds}s");
        return missing(store, ns, name, port).map(|why| format!("Post {url:?}: {why}"));
    }
    let url = s(client, "/url");
    let place = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    let (host, port) = place.rsplit_once(':').unwrap_or((place, "443"));
    let why = match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        Ok(ip) => format!(
            "dial tcp {}: connect: connection refused",
            std::net::SocketAddr::new(ip, port.parse().unwrap_or(443))
        ),
        Err(_) => format!("dial tcp: lookup {host}: no such host"),
    };
    let url = if url.contains("?") { url.to_owned() } else { format!("{url}?timeout={seconds}s") };
    Some(format!("Post {url:?}: {why}"))
}

/// Why a service leads nowhere: it is not there, has not the port, or has no pod that is ready.
fn missing(store: &Store, ns: &str, name: &str, port: u64) -> Option<String> {
    let Some(found) = store.get("services", ns, name) else {
        return Some(format!("service {name:?} not found"));
    };
    if !arr(found, "/spec/ports").iter().any(|p| p["port"].as_u64() == Some(port)) {
        return Some(format!("no service port {port} found for service {name:?}"));
    }
    if found["spec"]["type"] == "ExternalName" {
        return None;
    }
    let sel = json!({"matchLabels": {"kubernetes.io/service-name": name}});
    let ready = store
        .select("endpointslices.discovery.k8s.io", ns, &sel)
        .iter()
        .any(|slice| arr(slice, "/endpoints").iter().any(|e| e["conditions"]["ready"] != false));
    (!ready).then(|| format!("no endpoints available for service {name:?}"))
}
