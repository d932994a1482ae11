//! A packed chart on this machine: what it is, its values, its schema. No I/O beyond memory.
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::core::error::{OpError, OpResult};

/// Largest chart that is unpacked.
const LIMIT: u64 = 64 << 20;

/// A chart as its archive has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Archive {
    /// `Chart.yaml`.
    pub metadata: Value,
    /// `values.yaml`.
    pub values: Value,
    /// `values.schema.json`.
    pub schema: Value,
}

/// Files at the top of a tar: `(path, content)`. Only plain files count.
fn files(tar: &[u8]) -> Vec<(String, &[u8])> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(head) = tar.get(at..at + 512) {
        let text =
            |from: usize, to: usize| String::from_utf8_lossy(&head[from..to]).trim_end_matches('\0').trim().to_owned();
        let name = text(0, 100);
        if name.is_empty() {
            break;
        }
        let size = usize::from_str_radix(&text(124, 136), 8).unwrap_or(0);
        let Some(body) = tar.get(at + 512..at + 512 + size) else { break };
        if matches!(head[156], b'0' | 0) {
            let prefix = text(345, 500);
            out.push((if prefix.is_empty() { name } else { format!("{prefix}/{name}") }, body));
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    out
}

/// Reads a `.tgz` chart.
///
/// # Errors
/// `invalid` when it is none.
pub fn read(bytes: &[u8]) -> OpResult<Archive> {
    let bad =
        |why: String| OpError::invalid("this is not a packed chart").because(why).hint("`helm package` makes one");
    let mut tar = Vec::new();
    GzDecoder::new(bytes).take(LIMIT).read_to_end(&mut tar).map_err(|e| bad(e.to_string()))?;
    let mut a = Archive::default();
    for (path, body) in files(&tar) {
        let mut parts = path.trim_start_matches("./").splitn(2, '/');
        let (_, Some(file)) = (parts.next(), parts.next()) else { continue };
        let yaml = || serde_saphyr::from_str::<Value>(&String::from_utf8_lossy(body)).map_err(|e| bad(e.to_string()));
        match file {
            "Chart.yaml" => a.metadata = yaml()?,
            "values.yaml" => a.values = yaml()?,
            "values.schema.json" => {
                a.schema = serde_json::from_slice(body).map_err(|e| bad(format!("values.schema.json: {e}")))?;
            }
            _ => {}
        }
    }
    if a.metadata["name"].is_string() { Ok(a) } else { Err(bad("it has no Chart.yaml".to_owned())) }
}

/// Top-level keys of `values` that the chart does not have: it would ignore them without a word.
#[must_use]
pub fn inert_keys(values: &Value, metadata: &Value, known: &Value, schema: &Value) -> Vec<(String, Option<String>)> {
    let Some(known) = known.as_object().filter(|k| !k.is_empty()) else { return Vec::new() };
    let parts = metadata["dependencies"].as_array();
    let parts: Vec<&str> =
        parts.into_iter().flatten().flat_map(|d| [d["alias"].as_str(), d["name"].as_str()]).flatten().collect();
    let allowed =
        |k: &str| known.contains_key(k) || k == "global" || parts.contains(&k) || schema["properties"].get(k).is_some();
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
            ("demo/charts/sub/values.yaml", "other: 1\n"),
        ]);
        let a = read(&chart).unwrap();
        assert_eq!((a.metadata["version"].as_str(), a.values["replicas"].as_i64()), (Some("1.2.3"), Some(1)));
        let v = json!({"replica": 2, "sub": {}, "global": {}, "image": {}});
        assert_eq!(
            inert_keys(&v, &a.metadata, &a.values, &a.schema),
            [("replica".to_owned(), Some("replicas".to_owned()))]
        );
        assert!(inert_keys(&v, &a.metadata, &Value::Null, &Value::Null).is_empty());
        assert!(read(b"nonsense").is_err());
    }
}
