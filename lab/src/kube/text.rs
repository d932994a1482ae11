//! Small text work: time stamps, quantities, names, hashes.
use base64::Engine as _;
use serde_json::Value;
use sha2::Digest;

use crate::world::World;

pub use super::store::meta::{micro_time as stamp_micro, time as stamp};

/// Parses a quantity into thousandths (`500m` = 500, `2` = 2000, `1Gi` = 1073741824000).
#[must_use]
pub fn milli(v: &Value) -> i64 {
    let text = match v {
        Value::Number(n) => return (n.as_f64().unwrap_or(0.0) * 1000.0) as i64,
        Value::String(s) => s.trim(),
        _ => return 0,
    };
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: f64 = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => 1.0,
    };
    (number.parse::<f64>().unwrap_or(0.0) * factor * 1000.0) as i64
}

/// Random end of a generated name, with Kubernetes' alphabet.
pub fn suffix(w: &mut World, len: usize) -> String {
    (0..len).map(|_| char::from(LETTERS[(w.random() % LETTERS.len() as u64) as usize])).collect()
}

/// The letters of generated names.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template as names and labels have it: a number of 32 bits, each digit of it as a letter.
#[must_use]
pub fn template_hash(template: &Value) -> String {
    let sum = sha2::Sha256::digest(ordered(template).as_bytes());
    let number = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
    number.to_string().bytes().map(|b| char::from(LETTERS[usize::from(b) % LETTERS.len()])).collect()
}

/// Letters of a name that are always equal for equal input.
#[must_use]
pub fn hash_name(text: &str, len: usize) -> String {
    let sum = sha2::Sha256::digest(text.as_bytes());
    sum.iter().take(len).map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect()
}

/// A value with the keys of its maps in order.
#[must_use]
pub fn sorted(v: &Value) -> Value {
    match v {
        Value::Object(m) => {
            let mut all: Vec<(String, Value)> = m.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(all.into_iter().collect())
        }
        Value::Array(a) => a.iter().map(sorted).collect(),
        v => v.clone(),
    }
}

/// JSON with its keys in order: equal for equal values, however they were written.
#[must_use]
pub fn ordered(v: &Value) -> String {
    match v {
        Value::Object(m) => {
            let mut keys: Vec<&String> = m.keys().collect();
            keys.sort();
            let parts: Vec<String> =
                keys.into_iter().map(|k| format!("{}:{}", Value::from(k.as_str()), ordered(&m[k]))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(a) => format!("[{}]", a.iter().map(ordered).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of bytes in hexadecimal.
#[must_use]
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

/// SHA-256 of a text in hexadecimal.
#[must_use]
pub fn sha256(text: &str) -> String {
    sha256_of(text.as_bytes())
}

/// A value as texts show it: strings without quotes.
#[must_use]
pub fn shown(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

/// Base64 of bytes.
#[must_use]
pub fn b64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Text of base64.
#[must_use]
pub fn unb64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}

/// The string at a JSON pointer, empty if there is none.
#[must_use]
pub fn s<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The list at a JSON pointer.
#[must_use]
pub fn arr<'a>(v: &'a Value, pointer: &str) -> &'a [Value] {
    v.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether `labels` satisfy a label selector (`matchLabels` and `matchExpressions`), or a plain map.
#[must_use]
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let plain = selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none();
    let map = if plain { Some(selector) } else { selector.get("matchLabels") };
    let all = map.and_then(Value::as_object).is_none_or(|m| m.iter().all(|(k, v)| labels.get(k) == Some(v)));
    all && arr(selector, "/matchExpressions").iter().all(|e| expression(e, |k| labels.get(k).and_then(Value::as_str)))
}

/// Whether one selector expression holds.
pub fn expression<'a>(e: &Value, look: impl Fn(&str) -> Option<&'a str>) -> bool {
    let have = look(s(e, "/key"));
    let listed = || have.is_some_and(|h| arr(e, "/values").iter().any(|v| v.as_str() == Some(h)));
    let number = |v: &str| v.parse::<i64>().ok();
    let first = arr(e, "/values").first().and_then(Value::as_str).and_then(number);
    match s(e, "/operator") {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => have.and_then(number).zip(first).is_some_and(|(a, b)| a > b),
        "Lt" => have.and_then(number).zip(first).is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_and_quantities() {
        assert_eq!(stamp(1_763_868_235_000), "2025-11-23T03:23:55Z");
        assert_eq!(milli(&json!("500m")), 500);
        assert_eq!(milli(&json!(2)), 2000);
        assert_eq!(milli(&json!("1Ki")), 1_024_000);
    }

    #[test]
    fn selectors() {
        let l = json!({"app": "x", "tier": "2"});
        assert!(selects(&json!({"matchLabels": {"app": "x"}}), &l));
        assert!(selects(&json!({"app": "x"}), &l));
        assert!(!selects(&json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}), &l));
    }
}
