//! Helm's release Secrets: base64 of gzip of JSON, inside the base64 of a Secret. No I/O beyond memory.
use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

/// Largest release that is unpacked.
const LIMIT: u64 = 64 << 20;

/// Reads `data.release` of a release Secret as the API gives it.
#[must_use]
pub fn decode(data: &str) -> Option<Value> {
    let outer = STANDARD.decode(data.trim()).ok()?;
    let inner = STANDARD.decode(outer.trim_ascii()).ok()?;
    // Helm 2 stored plain JSON; everything since is gzip
    if !inner.starts_with(&[0x1f, 0x8b]) {
        return serde_json::from_slice(&inner).ok();
    }
    let mut text = Vec::new();
    GzDecoder::new(inner.as_slice()).take(LIMIT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Writes a release the way Helm does.
///
/// # Errors
/// When compression fails (out of memory).
pub fn encode(release: &Value) -> std::io::Result<String> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(release.to_string().as_bytes())?;
    Ok(STANDARD.encode(STANDARD.encode(gz.finish()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn round_trip_and_garbage() {
        let r = json!({"name": "x", "chart": {"metadata": {"version": "1.2.3"}}});
        assert_eq!(decode(&encode(&r).unwrap()), Some(r));
        assert_eq!(decode("not base64!"), None);
        assert_eq!(decode(&STANDARD.encode(STANDARD.encode(b"{\"a\":1}"))), Some(json!({"a": 1})));
    }
}
