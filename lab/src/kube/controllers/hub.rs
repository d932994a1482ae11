//! JupyterHub's REST API: users and their servers, for clients with a service token.
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::hooks::{ServiceAnswer, ServiceRequest};
use super::super::text::{arr, s};
use super::pods;

fn answer(status: u16, body: &Value) -> ServiceAnswer {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    ServiceAnswer { status, content_type: "application/json".into(), body: bytes }
}

fn fail(status: u16, text: &str) -> ServiceAnswer {
    answer(status, &json!({"status": status, "message": text}))
}

fn users(cx: &Cx) -> Value {
    cx.c.apps.get("hub/users").cloned().unwrap_or_else(|| json!({}))
}

/// The service whose token the request carries.
fn caller(cx: &Cx, req: &ServiceRequest) -> Option<String> {
    let header = req.headers.iter().find(|(k, _)| k == "authorization" || k == "x-jupyterhub-token")?;
    let token = header.1.trim_start_matches("token ").trim_start_matches("Bearer ").trim();
    let services = cx.c.apps.get("values/jupyterhub")?["hub"]["services"].as_object()?.clone();
    services
        .iter()
        .find(|(_, v)| v["apiToken"].as_str().is_some_and(|t| !t.is_empty() && t == token))
        .map(|(k, _)| k.clone())
}

/// Answers a request to the hub.
pub fn serve(cx: &mut Cx, req: &ServiceRequest) -> ServiceAnswer {
    let path = req.path.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    let Some(rest) = path.strip_prefix("/hub/api") else {
        return match path.as_str() {
            "/hub/health" => ServiceAnswer { status: 200, content_type: "text/html".into(), body: Vec::new() },
            "" | "/hub" | "/hub/login" => fail(501, "the hub's pages are not simulated: its API is, below /hub/api"),
            _ => fail(404, "Not Found"),
        };
    };
    if rest.is_empty() {
        return answer(200, &json!({"version": "5.4.2"}));
    }
    if caller(cx, req).is_none() {
        return fail(403, "Missing or invalid credentials.");
    }
    let ns = req.namespace.as_str();
    let parts: Vec<&str> = rest.trim_matches('/').split('/').collect();
    match (req.method.as_str(), &parts[..]) {
        ("GET", ["users"]) => {
            answer(200, &users(cx).as_object().map(|m| m.values().cloned().collect()).unwrap_or_default())
        }
        ("GET", ["users", user]) => match shown(cx, ns, user) {
            Some(u) => answer(200, &u),
            None => fail(404, "Not Found"),
        },
        ("POST", ["users", user]) => {
            let mut all = users(cx);
            if !all[*user].is_null() {
                return fail(409, &format!("User {user} already exists"));
            }
            all[*user] = json!({"name": user, "admin": false, "kind": "user", "server": null, "servers": {}});
            let made = all[*user].clone();
            cx.c.apps.insert("hub/users".to_owned(), all);
            answer(201, &made)
        }
        ("DELETE", ["users", user]) => {
            let mut all = users(cx);
            stop(cx, ns, user);
            if let Some(m) = all.as_object_mut() {
                m.shift_remove(*user);
            }
            cx.c.apps.insert("hub/users".to_owned(), all);
            answer(204, &Value::Null)
        }
        ("POST", ["users", user, "server"]) => spawn(cx, ns, user, &req.body),
        ("DELETE", ["users", user, "server"]) => {
            stop(cx, ns, user);
            answer(204, &Value::Null)
        }
        _ => fail(501, "not simulated: add it to lab/src/kube/controllers/hub.rs"),
    }
}

fn shown(cx: &Cx, ns: &str, user: &str) -> Option<Value> {
    let mut u = users(cx)[user].clone();
    if u.is_null() {
        return None;
    }
    if let Some(pod) = cx.get("pods", ns, &format!("jupyter-{user}")) {
        let ready = pods::is_ready(pod);
        u["servers"] = json!({"": {"name": "", "ready": ready, "pending": if ready { Value::Null } else { json!("spawn") },
            "url": format!("/user/{user}/"), "started": pod["metadata"]["creationTimestamp"]}});
    }
    Some(u)
}

fn spawn(cx: &mut Cx, ns: &str, user: &str, body: &[u8]) -> ServiceAnswer {
    if users(cx)[user].is_null() {
        return fail(404, "Not Found");
    }
    if cx.get("pods", ns, &format!("jupyter-{user}")).is_some() {
        return fail(400, &format!("{user} is already running"));
    }
    let options: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let values = cx.c.apps.get("values/jupyterhub").cloned().unwrap_or_default();
    let single = &values["singleuser"];
    let profiles = arr(single, "/profileList");
    let wanted = s(&options, "/profile");
    let profile = profiles
        .iter()
        .find(|p| s(p, "/slug") == wanted || s(p, "/display_name") == wanted)
        .or_else(|| profiles.iter().find(|p| p["default"] == true))
        .cloned()
        .unwrap_or_default();
    let over = &profile["kubespawner_override"];
    let claim = format!("claim-{user}");
    if cx.get("persistentvolumeclaims", ns, &claim).is_none() {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": single["storage"]["capacity"].as_str().unwrap_or("10Gi")}}});
        if let Some(class) = single["storage"]["dynamic"]["storageClass"].as_str() {
            spec["storageClassName"] = json!(class);
        }
        cx.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": ns,
            "labels": {"app": "jupyterhub", "component": "singleuser-storage", "hub.jupyter.org/username": user}}, "spec": spec}));
    }
    let mut limits = over["extra_resource_limits"].clone();
    if !limits.is_object() {
        limits = json!({});
    }
    let mut spec = json!({
        "restartPolicy": "OnFailure",
        "containers": [{"name": "notebook", "image": over["image"].as_str().unwrap_or("quay.io/jupyterhub/k8s-singleuser-sample:4.3.1"),
            "resources": {"limits": limits, "requests": limits}, "volumeMounts": [{"name": "volume", "mountPath": "/home/jovyan"}]}],
        "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
        "tolerations": over["tolerations"].as_array().cloned().unwrap_or_default(),
    });
    if single["cloudMetadata"]["blockWithIptables"] != false {
        // the chart's default; needs the kernel's old tables, which nothing on these machines has loaded
        spec["initContainers"] = json!([{"name": "block-cloud-metadata", "image": "quay.io/jupyterhub/k8s-network-tools:4.3.1",
            "command": ["iptables", "--append", "OUTPUT", "--protocol", "tcp", "--destination", "169.254.169.254",
                "--destination-port", "80", "--jump", "DROP"],
            "securityContext": {"privileged": true, "runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}}}]);
    }
    for (k, v) in over["extra_pod_config"].as_object().into_iter().flatten() {
        spec[k] = v.clone();
    }
    cx.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("jupyter-{user}"), "namespace": ns,
        "labels": {"app": "jupyterhub", "component": "singleuser-server", "hub.jupyter.org/username": user}}, "spec": spec}));
    answer(202, &Value::Null)
}

fn stop(cx: &mut Cx, ns: &str, user: &str) {
    cx.delete("pods", ns, &format!("jupyter-{user}"));
}
