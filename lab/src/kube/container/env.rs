//! The environment of a container: its `env`, `envFrom`, and what Kubernetes adds.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::kube::cx::Cx;
use crate::kube::text::{arr, milli, s, unb64};

/// A key of a ConfigMap or Secret as text.
fn entry(cx: &Cx, resource: &str, ns: &str, name: &str, key: &str) -> Option<String> {
    let o = cx.get(resource, ns, name)?;
    let text = o["data"].get(key)?.as_str()?;
    if resource == "secrets" {
        return unb64(text).map(|b| String::from_utf8_lossy(&b).into_owned());
    }
    Some(text.to_owned())
}

/// A field of the pod (`metadata.labels['app']`, `status.podIP`).
pub(super) fn field(pod: &Value, path: &str) -> String {
    if let Some((map, key)) = path.split_once('[') {
        let key = key.trim_end_matches(']').trim_matches(['\'', '"']);
        let at = format!("/{}", map.replace('.', "/"));
        return pod.pointer(&at).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned();
    }
    match pod.pointer(&format!("/{}", path.replace('.', "/"))) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(m)) => {
            let lines: Vec<String> = m.iter().map(|(k, v)| format!("{k}={v}")).collect();
            lines.join("\n")
        }
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// What a container may use or asks for, in units of the divisor, rounded up; without a limit what its node has.
pub(super) fn amount(cx: &Cx, pod: &Value, c: &Value, of: &Value) -> String {
    let (part, name) = s(of, "/resource").split_once('.').unwrap_or_default();
    let own = &c["resources"][part][name];
    let node = || cx.get("nodes", "", s(pod, "/spec/nodeName")).map(|n| n["status"]["allocatable"][name].clone());
    let told = match own {
        Value::Null if part == "limits" => node().unwrap_or_default(),
        own => own.clone(),
    };
    let unit = Some(milli(&of["divisor"])).filter(|n| *n > 0).unwrap_or(1000);
    let have = milli(&told);
    (have / unit + i64::from(have % unit > 0)).to_string()
}

/// Variables about the services of a namespace, and about the API server.
fn services(cx: &Cx, pod: &Value, out: &mut BTreeMap<String, String>) {
    let ns = s(pod, "/metadata/namespace");
    let own = |o: &&Value| pod["spec"]["enableServiceLinks"] != false && s(o, "/metadata/namespace") == ns;
    let master = |o: &&Value| s(o, "/metadata/name") == "kubernetes" && s(o, "/metadata/namespace") == "default";
    for svc in cx.list_in("services", ns).into_iter().chain(cx.get("services", "default", "kubernetes")) {
        let ip = s(svc, "/spec/clusterIP");
        if !(own(&svc) || master(&svc)) || matches!(ip, "" | "None") {
            continue;
        }
        let name = s(svc, "/metadata/name").to_uppercase().replace('-', "_");
        let ports = arr(svc, "/spec/ports");
        let Some(first) = ports.first() else { continue };
        let mut put = |k: String, v: String| drop(out.insert(format!("{name}_{k}"), v));
        put("SERVICE_HOST".to_owned(), ip.to_owned());
        put("SERVICE_PORT".to_owned(), first["port"].to_string());
        for (i, p) in ports.iter().enumerate() {
            let port = p["port"].to_string();
            let word = if s(p, "/protocol").is_empty() { "TCP" } else { s(p, "/protocol") };
            let (url, at) = (format!("{}://{ip}:{port}", word.to_lowercase()), format!("PORT_{port}_{word}"));
            if !s(p, "/name").is_empty() {
                put(format!("SERVICE_PORT_{}", s(p, "/name").to_uppercase().replace('-', "_")), port.clone());
            }
            if i == 0 {
                put("PORT".to_owned(), url.clone());
            }
            put(at.clone(), url);
            put(format!("{at}_PROTO"), word.to_lowercase());
            put(format!("{at}_PORT"), port);
            put(format!("{at}_ADDR"), ip.to_owned());
        }
    }
}

/// `$(NAME)` replaced by what is already known; `$$` is a dollar sign that means nothing.
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let name = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        if let Some((name, after)) = name {
            match known.get(name) {
                Some(v) => out += v,
                None => out += &format!("$({name})"),
            }
            rest = after;
        } else {
            out.push('$');
            rest = rest.strip_prefix('$').unwrap_or(rest);
        }
    }
    out + rest
}

fn value(cx: &Cx, pod: &Value, c: &Value, from: &Value) -> Option<String> {
    let ns = s(pod, "/metadata/namespace");
    if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
        return Some(field(pod, path));
    }
    if from["resourceFieldRef"].is_object() {
        return Some(amount(cx, pod, c, &from["resourceFieldRef"]));
    }
    for (kind, resource) in [("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")] {
        if from[kind].is_object() {
            return entry(cx, resource, ns, s(&from[kind], "/name"), s(&from[kind], "/key"));
        }
    }
    None
}

/// The environment of container `c` of `pod`: what its image and its runtime set, and what its pod says.
pub(super) fn of(cx: &Cx, pod: &Value, c: &Value) -> BTreeMap<String, String> {
    let hostname = match s(pod, "/spec/hostname") {
        "" => s(pod, "/metadata/name"),
        h => h,
    };
    let set = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("HOSTNAME", hostname),
    ];
    let mut out: BTreeMap<String, String> = set.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    out.extend(declared(cx, pod, c));
    out
}

/// The variables that a container's spec and the services around it declare, which its command line may refer to.
pub(super) fn declared(cx: &Cx, pod: &Value, c: &Value) -> BTreeMap<String, String> {
    let ns = s(pod, "/metadata/namespace");
    let mut out = BTreeMap::new();
    for (k, v) in [
        ("KUBERNETES_SERVICE_HOST", "10.43.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("KUBERNETES_PORT", "tcp://10.43.0.1:443"),
    ] {
        out.insert(k.to_owned(), v.to_owned());
    }
    services(cx, pod, &mut out);
    for from in arr(c, "/envFrom") {
        let prefix = s(from, "/prefix");
        for (kind, resource) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
            let name = s(&from[kind], "/name");
            let keys = cx.get(resource, ns, name).and_then(|o| o["data"].as_object()).into_iter().flatten();
            for (k, _) in keys {
                if let Some(v) = entry(cx, resource, ns, name, k) {
                    out.insert(format!("{prefix}{k}"), v);
                }
            }
        }
    }
    for e in arr(c, "/env") {
        let v = match e["value"].as_str().filter(|_| e["valueFrom"].is_null()) {
            Some(text) => Some(expand(text, &out)),
            None => value(cx, pod, c, &e["valueFrom"]).or_else(|| e["valueFrom"].is_null().then(String::new)),
        };
        if let Some(v) = v {
            out.insert(s(e, "/name").to_owned(), v);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_earlier_variables_are_replaced() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$(A)y$(B)", &known), "x1y$(B)");
        // an escaped one is no reference, and what is none stays as it is
        assert_eq!(expand("$$(A) $$$(A) $A $(A", &known), "$(A) $1 $A $(A");
        assert_eq!(expand("echo $$", &known), "echo $");
    }
}
