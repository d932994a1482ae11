//! What Traefik writes on the Ingresses that it serves: the addresses of the Service that its arguments name. Grade:
//! source (Traefik's provider for Ingresses).
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::text::{arr, s};
use super::pods;

/// Where Traefik runs.
pub const HOME: &str = "kube-system";
const INGRESSES: &str = "ingresses.networking.k8s.io";
const CLASSES: &str = "ingressclasses.networking.k8s.io";
/// The annotation that named a class before there was a field for it.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";
const CONTROLLER: &str = "traefik.io/ingress-controller";
const ARGUMENT: &str = "--providers.kubernetesingress.ingressendpoint.publishedservice=";

/// The Service that a ready Traefik is told to publish.
fn published(cx: &Cx) -> Option<(String, String)> {
    let select = json!({"matchLabels": {"app.kubernetes.io/name": "traefik"}});
    let pod = cx.c.store.select("pods", HOME, &select).into_iter().find(|p| pods::is_ready(p))?;
    let args = arr(pod, "/spec/containers/0/args").iter().filter_map(Value::as_str);
    let (ns, name) = args.filter_map(|a| a.strip_prefix(ARGUMENT)).next_back()?.split_once('/')?;
    Some((ns.to_owned(), name.to_owned()))
}

/// Whether Traefik serves an Ingress: one of a class that is its own, or one without a class.
fn serves(cx: &Cx, ingress: &Value) -> bool {
    match ingress["spec"]["ingressClassName"].as_str() {
        Some(name) => cx.get(CLASSES, "", name).is_some_and(|c| s(c, "/spec/controller") == CONTROLLER),
        None => matches!(ingress["metadata"]["annotations"][OLD_CLASS].as_str(), None | Some("" | "traefik")),
    }
}

/// Whether a Service has addresses that could be published.
#[must_use]
pub fn reached(service: &Value) -> bool {
    !arr(service, "/status/loadBalancer/ingress").is_empty()
}

/// Writes the addresses where they differ; a Service that has none yet changes nothing.
pub fn publish(cx: &mut Cx) {
    if cx.list(INGRESSES).is_empty() {
        return;
    }
    let Some((ns, name)) = published(cx) else { return };
    let at = cx.get("services", &ns, &name).map(|svc| arr(svc, "/status/loadBalancer/ingress")).unwrap_or_default();
    if at.is_empty() {
        return;
    }
    let named = |a: &Value| match a["ip"].as_str() {
        Some(ip) => json!({"ip": ip}),
        None => json!({"hostname": a["hostname"]}),
    };
    let at: Vec<Value> = at.iter().map(named).collect();
    let old: Vec<(String, String)> = cx
        .list(INGRESSES)
        .into_iter()
        .filter(|i| arr(i, "/status/loadBalancer/ingress") != at && serves(cx, i))
        .map(key)
        .collect();
    cx.writing("traefik", |cx| {
        for (ns, name) in old {
            cx.update(INGRESSES, &ns, &name, |o| o["status"]["loadBalancer"] = json!({"ingress": at}));
        }
    });
}
