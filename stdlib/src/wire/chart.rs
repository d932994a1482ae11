//! A packed chart: what it is, its values, its schema. No I/O beyond memory.
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

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
    /// Its templates, one after the other.
    pub templates: String,
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
/// Why it is none.
pub fn read(bytes: &[u8]) -> Result<Archive, String> {
    let mut tar = Vec::new();
    GzDecoder::new(bytes).take(LIMIT).read_to_end(&mut tar).map_err(|e| e.to_string())?;
    let mut a = Archive::default();
    for (path, body) in files(&tar) {
        let mut parts = path.trim_start_matches("./").splitn(2, '/');
        let (_, Some(file)) = (parts.next(), parts.next()) else { continue };
        let yaml = || serde_saphyr::from_str::<Value>(&String::from_utf8_lossy(body)).map_err(|e| e.to_string());
        match file {
            "Chart.yaml" => a.metadata = yaml()?,
            "values.yaml" => a.values = yaml()?,
            "values.schema.json" => {
                a.schema = serde_json::from_slice(body).map_err(|e| format!("values.schema.json: {e}"))?;
            }
            f if f.starts_with("templates/") => a.templates.push_str(&String::from_utf8_lossy(body)),
            _ => {}
        }
    }
    if a.metadata["name"].is_string() { Ok(a) } else { Err("it has no Chart.yaml".to_owned()) }
}
