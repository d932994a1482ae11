//! A packed chart on this machine, and values that a chart does not have. No I/O beyond memory.
use serde_json::Value;

use crate::core::error::{OpError, OpResult};
pub use crate::wire::chart::Archive;

/// Reads a `.tgz` chart.
///
/// # Errors
/// `invalid` when it is none.
pub fn read(bytes: &[u8]) -> OpResult<Archive> {
    crate::wire::chart::read(bytes)
        .map_err(|why| OpError::invalid("this is not a packed chart").because(why).hint("`helm package` makes one"))
}

/// Whether templates read a top-level value: `.Values.key`, `index .Values "key"`.
fn reads(templates: &str, key: &str) -> bool {
    templates.match_indices("Values").any(|(at, word)| {
        let rest = templates[at + word.len()..].trim_start_matches([' ', '.', '"']);
        rest.strip_prefix(key)
            .is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
    })
}

/// Top-level keys of `values` that the chart does not have: it would ignore them without a word. What `values.yaml` only
/// shows as a comment is still read by a template.
#[must_use]
pub fn inert_keys(
    values: &Value,
    metadata: &Value,
    known: &Value,
    schema: &Value,
    templates: &str,
) -> Vec<(String, Option<String>)> {
    let Some(known) = known.as_object().filter(|k| !k.is_empty()) else { return Vec::new() };
    let parts = metadata["dependencies"].as_array();
    let parts: Vec<&str> =
        parts.into_iter().flatten().flat_map(|d| [d["alias"].as_str(), d["name"].as_str()]).flatten().collect();
    let allowed = |k: &str| {
        known.contains_key(k)
            || k == "global"
            || parts.contains(&k)
            || schema["properties"].get(k).is_some()
            || reads(templates, k)
    };
    let names = || known.keys().map(String::as_str).chain(parts.iter().copied());
    let given = values.as_object().into_iter().flatten().map(|(k, _)| k);
    given
        .filter(|k| !allowed(k))
        .map(|k| (k.clone(), crate::core::options::closest(k, names()).map(str::to_owned)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use serde_json::json;

    fn tgz(list: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, text) in list {
            let mut head = [0u8; 512];
            head[..name.len()].copy_from_slice(name.as_bytes());
            head[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
            head[156] = b'0';
            tar.extend(head);
            tar.extend(text.as_bytes());
            tar.resize(tar.len().div_ceil(512) * 512, 0);
        }
        tar.resize(tar.len() + 1024, 0);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn a_chart_is_read_and_unknown_values_are_named() {
        let chart = tgz(&[
            ("demo/Chart.yaml", "name: demo\nversion: 1.2.3\nkubeVersion: '>=1.30.0-0'\ndependencies: [{name: sub}]\n"),
            ("demo/values.yaml", "image: {tag: x}\nreplicas: 1\n"),
            ("demo/templates/a.yaml", "host: {{ .Values.hostname }}\nx: {{ index .Values \"tls-extra\" }}\n"),
            ("demo/charts/sub/values.yaml", "other: 1\n"),
        ]);
        let a = read(&chart).unwrap();
        assert_eq!((a.metadata["version"].as_str(), a.values["replicas"].as_i64()), (Some("1.2.3"), Some(1)));
        let v = json!({"replica": 2, "sub": {}, "global": {}, "image": {}});
        assert_eq!(
            inert_keys(&v, &a.metadata, &a.values, &a.schema, &a.templates),
            [("replica".to_owned(), Some("replicas".to_owned()))]
        );
        assert!(inert_keys(&v, &a.metadata, &Value::Null, &Value::Null, "").is_empty());
        // Rancher's `hostname` is a comment in its values.yaml
        let v = json!({"host": "a", "hostname": "b", "tls-extra": "c"});
        let inert = inert_keys(&v, &a.metadata, &a.values, &a.schema, &a.templates);
        assert_eq!(inert.into_iter().map(|(k, _)| k).collect::<Vec<_>>(), ["host"]);
        assert!(read(b"nonsense").is_err());
    }
}
