//! Parts of the core group as the real server writes them out in its words: with the names that its own structs have
//! and every field, told or not; and how two such texts differ. Grade: source (pkg/apis/core, the diff of apimachinery).
use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sort {
    /// Something that may be absent: a pointer, a list or a map of plain values.
    Open,
    Text,
    Flag,
    Number,
    Quantity,
    Struct(&'static str),
    Pointer(&'static str),
    List(&'static str),
    /// The fields of another struct, as its own.
    Inline(&'static str),
}

type Fields = Vec<(&'static str, Sort)>;

/// Structs and their fields, in order.
static SHAPES: LazyLock<HashMap<&'static str, Fields>> = LazyLock::new(|| {
    let field = |part: &'static str| -> (&'static str, Sort) {
        if let Some(of) = part.strip_prefix('=') {
            return ("", Sort::Inline(of));
        }
        let (name, sort) = part.split_once(':').unwrap_or((part, "-"));
        let sort = match sort {
            "-" => Sort::Open,
            "s" => Sort::Text,
            "b" => Sort::Flag,
            "i" => Sort::Number,
            "q" => Sort::Quantity,
            of => match (of.strip_prefix('*'), of.strip_prefix("[]")) {
                (Some(of), _) => Sort::Pointer(of),
                (_, Some(of)) => Sort::List(of),
                _ => Sort::Struct(of),
            },
        };
        (name, sort)
    };
    let line = |line: &'static str| line.split_once(' ').map(|(n, rest)| (n, rest.split(' ').map(field).collect()));
    include_str!("goshape.txt").lines().filter_map(line).collect()
});

/// Names of fields that clients know under others.
const OTHERWISE: &[(&str, &str)] = &[
    ("CephMonitors", "monitors"),
    ("RBDImage", "image"),
    ("RBDPool", "pool"),
    ("RadosUser", "user"),
    ("EndpointsName", "endpoints"),
];

/// What the security context of a pod has that clients write beside it.
const SHARED: &[&str] = &["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

/// A value of a struct, field by field.
#[must_use]
pub fn shaped(of: &str, v: &Value) -> Value {
    if v.is_null() {
        return Value::Null;
    }
    let mut out = Map::new();
    fill(of, v, &mut out);
    Value::Object(out)
}

/// A template of pods: metadata as everybody writes it, beside the spec.
#[must_use]
pub fn template(v: &Value) -> Value {
    let mut out = v["metadata"].as_object().cloned().unwrap_or_default();
    out.retain(|_, v| !v.is_null());
    for (k, v) in &mut out {
        if matches!(k.as_str(), "labels" | "annotations") {
            *v = sorted(v);
        }
    }
    out.insert("Spec".to_owned(), shaped("PodSpec", &v["spec"]));
    Value::Object(out)
}

fn fill(of: &str, v: &Value, out: &mut Map<String, Value>) {
    for (name, sort) in SHAPES.get(of).into_iter().flatten() {
        if let Sort::Inline(of) = sort {
            fill(of, v, out);
            continue;
        }
        let key = OTHERWISE.iter().find(|o| o.0 == *name).map_or(*name, |o| o.1);
        let told = v.as_object().and_then(|m| m.iter().find(|(k, _)| k.eq_ignore_ascii_case(key))).map(|e| e.1);
        let told = told.unwrap_or(&Value::Null);
        let shared = of == "PodSpec" && *name == "SecurityContext" && told.is_object();
        let value = if shared { shaped("PodSecurityContext", &gathered(v, told)) } else { one(*sort, told) };
        out.insert((*name).to_owned(), value);
    }
}

/// The security context of a pod with what stands beside it.
fn gathered(spec: &Value, own: &Value) -> Value {
    let mut all = own.clone();
    SHARED.iter().filter(|f| !spec[**f].is_null()).for_each(|f| all[*f] = spec[*f].clone());
    all
}

fn one(sort: Sort, v: &Value) -> Value {
    match sort {
        Sort::Text if v.is_null() => "".into(),
        Sort::Flag if v.is_null() => false.into(),
        Sort::Number if v.is_null() => 0.into(),
        Sort::Quantity if v.is_null() => "0".into(),
        Sort::Struct(of) if v.is_null() => shaped(of, &Value::Object(Map::new())),
        Sort::Struct(of) | Sort::Pointer(of) => shaped(of, v),
        Sort::List(of) => match v.as_array() {
            Some(a) => a.iter().map(|v| shaped(of, v)).collect(),
            None => Value::Null,
        },
        _ => sorted(v),
    }
}

/// Maps of plain values by their keys.
fn sorted(v: &Value) -> Value {
    let mut v = crate::kube::text::sorted(v);
    if let Some(m) = v.as_object_mut() {
        m.retain(|_, v| !v.is_null());
        // selectors have their labels first
        if let Some(all) = m.shift_remove("matchExpressions").filter(|a| a.as_array().is_some_and(|a| !a.is_empty())) {
            m.insert("matchExpressions".to_owned(), all);
        }
    }
    v
}

/// How two values of a struct differ.
#[must_use]
pub fn difference(of: &str, old: &Value, new: &Value) -> String {
    let lines = |v: &Value| -> Vec<String> { indented(&shaped(of, v)).lines().map(str::to_owned).collect() };
    super::unified::difference(&lines(old), &lines(new))
}

/// Indented by one blank a level, as Go does it.
fn indented(v: &Value) -> String {
    let mut out = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, form);
    let _ = serde::Serialize::serialize(v, &mut writer);
    let text = String::from_utf8(out).unwrap_or_default();
    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_changed_class_is_shown_in_its_place() {
        let claim = |class: &str| {
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v",
                "storageClassName": class, "volumeMode": "Filesystem"})
        };
        let want = "@@ -10,7 +10,7 @@\n   }\n  },\n  \"VolumeName\": \"v\",\n- \"StorageClassName\": \"s\",\n+ \"StorageClassName\": \"q\",\n  \"VolumeMode\": \"Filesystem\",\n  \"DataSource\": null,\n  \"DataSourceRef\": null,\n";
        assert_eq!(difference("PersistentVolumeClaimSpec", &claim("s"), &claim("q")), want);
    }

    #[test]
    fn what_clients_write_beside_a_security_context_is_in_it() {
        let v = shaped("PodSpec", &json!({"hostNetwork": true, "securityContext": {"runAsUser": 5}}));
        let context = &v["SecurityContext"];
        assert_eq!((&context["HostNetwork"], &context["HostPID"]), (&json!(true), &json!(false)));
        assert_eq!((&context["RunAsUser"], &context["HostUsers"]), (&json!(5), &Value::Null));
    }
}
