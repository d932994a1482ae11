//! Admission beyond validation: service accounts, priority and runtime classes that pods name, the Pod
//! Security Standards of a namespace, namespaces that stay. Grade: source (plugin/pkg/admission, pod-security-admission).
use serde_json::Value;

use super::{Failure, Store, meta, ranges};
use crate::kube::schema::Kind;
use crate::kube::text::{arr, milli, s};

/// Namespaces that nobody deletes.
const KEPT: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) fn is_pod(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Pod"
}

/// Refuses the deletion of a namespace that stays.
///
/// # Errors
/// 403.
pub(super) fn deletion(kind: &Kind, name: &str) -> Result<(), Failure> {
    if kind.group.is_empty() && kind.kind == "Namespace" && KEPT.contains(&name) {
        return Err(Failure::forbidden(kind, name, "this namespace may not be deleted"));
    }
    if kind.group == "scheduling.k8s.io" && kind.kind == "PriorityClass" && name.starts_with("system-") {
        return Err(Failure::forbidden(kind, name, "this is a system priority class and cannot be deleted"));
    }
    Ok(())
}

/// Refuses to grow a claim beyond its LimitRanges, or whose class does not allow it.
///
/// # Errors
/// 403 in the words of the plugin.
pub(super) fn growth(store: &Store, kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let size = |o: &Value| milli(&o["spec"]["resources"]["requests"]["storage"]);
    if kind.resource() == "persistentvolumeclaims" {
        ranges::check(store, kind, meta::namespace(old), new)?;
    }
    if !kind.group.is_empty() || kind.kind != "PersistentVolumeClaim" || size(new) <= size(old) {
        return Ok(());
    }
    let class = store.get("storageclasses.storage.k8s.io", "", s(new, "/spec/storageClassName"));
    let why = if s(old, "/status/phase") != "Bound" {
        "Only bound persistent volume claims can be expanded"
    } else if !class.is_some_and(|c| c["allowVolumeExpansion"] == true) {
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    } else {
        return Ok(());
    };
    Err(Failure::forbidden(kind, meta::name(new), why))
}

/// What is added to a new Job or Ingress that does not say it itself, after it is noted who manages what: pointers.
pub(super) fn untold(kind: &Kind, obj: &Value) -> Vec<&'static str> {
    let told = |p: &str| obj.pointer(p).is_some_and(|v| !v.is_null());
    match kind.kind.as_str() {
        "Job" => generated(obj).into_iter().filter(|p| !told(p)).collect(),
        "Ingress" => ["/spec/ingressClassName"].into_iter().filter(|p| !told(p)).collect(),
        "VolumeAttributesClass" => vec!["/metadata/finalizers"],
        // nobody has told the name that its label has
        "Namespace" if told("/metadata/generateName") && !told("/metadata/labels") => vec!["/metadata/labels"],
        _ => Vec::new(),
    }
}

/// What the server makes of a Job: its selector and its labels.
fn generated(obj: &Value) -> Vec<&'static str> {
    if obj["spec"]["manualSelector"] == true {
        return vec!["/metadata/labels"];
    }
    let meta = obj["spec"]["template"]["metadata"].as_object();
    let bare = meta.is_none_or(|m| m.iter().all(|(_, v)| v.is_null()));
    let mut out = vec!["/spec/selector", "/metadata/labels"];
    out.push(if bare { "/spec/template/metadata" } else { "/spec/template/metadata/labels" });
    out.extend([
        "/spec/template/metadata/labels/batch.kubernetes.io~1controller-uid",
        "/spec/template/metadata/labels/batch.kubernetes.io~1job-name",
        "/spec/template/metadata/labels/controller-uid",
        "/spec/template/metadata/labels/job-name",
    ]);
    out
}

/// Gives a new Ingress that names no class the newest default one.
fn ingress_class(store: &Store, obj: &mut Value) {
    const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
    let noted = meta::annotation(obj, "kubernetes.io/ingress.class").is_some();
    if noted || !obj["spec"]["ingressClassName"].is_null() {
        return;
    }
    let mut classes: Vec<&Value> = store
        .all("ingressclasses.networking.k8s.io", "")
        .filter(|c| meta::annotation(c, DEFAULT) == Some("true"))
        .map(|c| &**c)
        .collect();
    let born = |c: &Value| s(c, "/metadata/creationTimestamp").to_owned();
    classes.sort_by(|a, b| born(b).cmp(&born(a)).then_with(|| meta::name(a).cmp(meta::name(b))));
    if let Some(class) = classes.first() {
        obj["spec"]["ingressClassName"] = meta::name(class).into();
    }
}

/// There is one default PriorityClass.
///
/// # Errors
/// 403 in the words of the plugin.
pub(super) fn one_default(store: &Store, kind: &Kind, obj: &Value) -> Result<(), Failure> {
    if kind.kind != "PriorityClass" || obj["globalDefault"] != true {
        return Ok(());
    }
    let name = meta::name(obj);
    let mut all = store.all("priorityclasses.scheduling.k8s.io", "");
    match all.find(|c| c["globalDefault"] == true && meta::name(c) != name) {
        None => Ok(()),
        Some(c) => {
            let why =
                format!("PriorityClass {} is already marked as default. Only one default can exist", meta::name(c));
            Err(Failure::forbidden(kind, name, &why))
        }
    }
}

/// Fills in the class of a new Ingress.
pub(super) fn fill(store: &Store, kind: &Kind, obj: &mut Value) {
    if kind.kind == "Ingress" && kind.group == "networking.k8s.io" {
        ingress_class(store, obj);
    }
}

/// Refuses a new pod or claim that leaves its LimitRanges, and a pod that violates its namespace's standard.
///
/// # Errors
/// 403 in the words of the plugin.
pub(super) fn creation(store: &Store, kind: &Kind, ns: &str, obj: &Value, user: Option<&str>) -> Result<(), Failure> {
    ranges::check(store, kind, ns, obj)?;
    if !is_pod(kind) {
        return Ok(());
    }
    let refuse = |why: String| Err(Failure::forbidden(kind, meta::name(obj), &why));
    match demanded(store, ns, "enforce", &obj["spec"], user).and_then(|level| violations(&level, &obj["spec"])) {
        Some(why) => refuse(format!("violates PodSecurity {why}")),
        None => Ok(()),
    }
}

/// The standard that a namespace's label or else the server's configuration asks for, with its version.
fn demanded(store: &Store, ns: &str, mode: &str, spec: &Value, user: Option<&str>) -> Option<String> {
    let told = &store.standards;
    if told.exempt(ns, spec, user) {
        return None;
    }
    let labels = &store.get("namespaces", "", ns)?["metadata"]["labels"];
    let (level, version) = match labels[format!("pod-security.kubernetes.io/{mode}")].as_str() {
        Some(level) => (level, "latest"),
        None => told.default_of(mode)?,
    };
    let version = labels[format!("pod-security.kubernetes.io/{mode}-version")].as_str().unwrap_or(version);
    matches!(level, "baseline" | "restricted").then(|| format!("{level}:{version}"))
}

/// What a namespace's `warn` label, or the server's configuration, has to say of a pod's spec.
#[must_use]
pub fn warned(store: &Store, ns: &str, spec: &Value, user: &str) -> Option<String> {
    let level = demanded(store, ns, "warn", spec, Some(user))?;
    violations(&level, spec).map(|why| format!("would violate PodSecurity {why}"))
}

/// How a pod's spec violates a standard.
fn violations(level: &str, spec: &Value) -> Option<String> {
    let mut found = baseline(spec);
    if level.starts_with("restricted") {
        found.extend(restricted(spec));
    }
    (!found.is_empty()).then(|| format!("\"{level}\": {}", found.join(", ")))
}

/// Containers of all sorts.
fn containers(spec: &Value) -> Vec<&Value> {
    ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|l| arr(spec, &format!("/{l}"))).collect()
}

/// `container "a" WORDS`, or `containers "a", "b" WORDS`; none for none.
fn told(names: &[&str], words: &str) -> Option<String> {
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    match quoted.as_slice() {
        [] => None,
        [one] => Some(format!("container {one} {words}")),
        many => Some(format!("containers {} {words}", many.join(", "))),
    }
}

fn names(spec: &Value, wrong: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(spec).into_iter().filter(|c| wrong(c)).map(|c| s(c, "/name")).collect()
}

/// Capabilities that the baseline lets containers add.
const ALLOWED: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn baseline(spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let shared: Vec<&str> = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|k| spec[*k] == true).collect();
    if !shared.is_empty() {
        let list: Vec<String> = shared.iter().map(|k| format!("{k}=true")).collect();
        out.push(format!("host namespaces ({})", list.join(", ")));
    }
    let mut add = |title: &str, said: Option<String>| out.extend(said.map(|t| format!("{title} ({t})")));
    add(
        "privileged",
        told(
            &names(spec, |c| c["securityContext"]["privileged"] == true),
            "must not set securityContext.privileged=true",
        ),
    );
    let added = |c: &Value| -> Vec<String> {
        let all = arr(c, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        all.filter(|x| !ALLOWED.contains(x)).map(|x| format!("\"{x}\"")).collect()
    };
    let mut more: Vec<String> = containers(spec).into_iter().flat_map(added).collect();
    more.sort();
    more.dedup();
    let words = format!("must not include {} in securityContext.capabilities.add", more.join(", "));
    add("non-default capabilities", told(&names(spec, |c| !added(c).is_empty()), &words));
    let paths: Vec<String> =
        arr(spec, "/volumes").iter().filter(|v| v["hostPath"].is_object()).map(|v| v["name"].to_string()).collect();
    let word = if paths.len() == 1 { "volume" } else { "volumes" };
    add("hostPath volumes", (!paths.is_empty()).then(|| format!("{word} {}", paths.join(", "))));
    let ports: Vec<String> = containers(spec)
        .into_iter()
        .flat_map(|c| arr(c, "/ports"))
        .filter_map(|p| p["hostPort"].as_i64())
        .filter(|p| *p != 0)
        .map(|p| p.to_string())
        .collect();
    let word = if ports.len() == 1 { "hostPort" } else { "hostPorts" };
    let uses = |c: &Value| arr(c, "/ports").iter().any(|p| p["hostPort"].as_i64().unwrap_or(0) != 0);
    add("hostPort", told(&names(spec, uses), &format!("uses {word} {}", ports.join(", "))));
    out
}

fn restricted(spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut add = |title: &str, said: Option<String>| out.extend(said.map(|t| format!("{title} ({t})")));
    let gains = |c: &Value| c["securityContext"]["allowPrivilegeEscalation"] != false;
    add(
        "allowPrivilegeEscalation != false",
        told(&names(spec, gains), "must set securityContext.allowPrivilegeEscalation=false"),
    );
    let keeps = |c: &Value| !arr(c, "/securityContext/capabilities/drop").iter().any(|x| x == "ALL");
    add("unrestricted capabilities", told(&names(spec, keeps), "must set securityContext.capabilities.drop=[\"ALL\"]"));
    let own = |c: &Value, k: &str| !c["securityContext"][k].is_null();
    let pod = &spec["securityContext"];
    let root = |c: &Value| {
        if own(c, "runAsNonRoot") { c["securityContext"]["runAsNonRoot"] != true } else { pod["runAsNonRoot"] != true }
    };
    let pod_or = |said: Option<String>| said.map(|t| format!("pod or {t}"));
    add("runAsNonRoot != true", pod_or(told(&names(spec, root), "must set securityContext.runAsNonRoot=true")));
    let bare = |c: &Value| {
        let profile =
            if own(c, "seccompProfile") { &c["securityContext"]["seccompProfile"] } else { &pod["seccompProfile"] };
        !matches!(profile["type"].as_str(), Some("RuntimeDefault" | "Localhost"))
    };
    let words = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    add("seccompProfile", pod_or(told(&names(spec, bare), words)));
    out
}
