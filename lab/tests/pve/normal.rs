//! What two servers may differ in: ids, times, addresses, sizes of their machines, the order of sets.
use serde_json::{Map, Value, json};

/// Numbers of the machine or of the moment, by key.
const NUMBERS: &[&str] = &[
    "avail",
    "cpu",
    "ctime",
    "endtime",
    "mem",
    "memhost",
    "netin",
    "netout",
    "pid",
    "pstart",
    "snaptime",
    "starttime",
    "total",
    "uptime",
    "used",
];

/// A value with everything incidental replaced. `fixed` holds what requests have set by hand.
pub fn value(v: &Value, fixed: &str) -> Value {
    keyed("", v, fixed)
}

fn keyed(key: &str, v: &Value, fixed: &str) -> Value {
    match v {
        Value::Object(o) => {
            // In the order of the keys, so that rows can be sorted by their text.
            let mut keys: Vec<(&String, &Value)> = o.iter().collect();
            keys.sort_by_key(|(k, _)| *k);
            let mut out = Map::new();
            for (k, x) in keys {
                // A server without a storage.cfg shows this key.
                if k == "priority" && (o.contains_key("storage") || o.contains_key("prune-backups")) {
                    continue;
                }
                let k = if o.contains_key("netin") && k.starts_with("tap") { "tap" } else { k };
                out.insert(k.to_owned(), keyed(k, x, fixed));
            }
            Value::Object(out)
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(|x| keyed(key, x, fixed)).collect();
            // Lists of rows come in any order, but for logs and tasks.
            if list.iter().all(|x| x.is_object() && x.get("t").is_none() && x.get("upid").is_none()) {
                list.sort_by_key(Value::to_string);
            }
            Value::Array(list)
        }
        _ if key == "saved" => json!("any"),
        Value::Number(_) if NUMBERS.contains(&key) => json!("number"),
        Value::Number(_) => v.clone(),
        Value::String(s) => json!(text(key, s, fixed)),
        other => other.clone(),
    }
}

fn text(key: &str, s: &str, fixed: &str) -> String {
    match key {
        "digest" | "ssl_fingerprint" | "ticket" | "CSRFPreventionToken" if s.len() >= 36 => {
            return format!("a {key}");
        }
        "repoid" => return "any".into(),
        "content" | "privs" => {
            let mut parts: Vec<&str> = s.split(',').collect();
            parts.sort_unstable();
            return parts.join(",");
        }
        _ => {}
    }
    if let Some(list) = s.strip_prefix("invalid format - format error\n") {
        let mut lines: Vec<&str> = list.lines().collect();
        lines.sort_unstable();
        return format!("format error: {}", lines.join("; "));
    }
    if let Some(rest) = s.strip_prefix("UPID:") {
        let parts: Vec<&str> = rest.split(':').collect();
        return format!("UPID {} {}", parts.first().unwrap_or(&""), parts.get(4..).unwrap_or_default().join(" "));
    }
    let mut out = String::new();
    for part in s.split_inclusive([',', '=', ' ', '\n', '\'']) {
        let body = part.trim_end_matches([',', '=', ' ', '\n', '\'']);
        let tail = &part[body.len()..];
        let mac = body.len() == 17 && body.matches(':').count() == 5;
        let uuid = body.len() == 36 && body.matches('-').count() == 4;
        let known = fixed.contains(body);
        let secret = body.starts_with("$5$");
        let instance = body.len() == 40 && body.bytes().all(|b| b.is_ascii_hexdigit());
        let qemu = body.starts_with(|c: char| c.is_ascii_digit()) && s.starts_with("creation-qemu=");
        let shown = match () {
            () if mac && !known => "MAC",
            () if uuid && !known => "UUID",
            () if secret => "HASH",
            () if instance => "SHA1",
            () if qemu => "N",
            () => body,
        };
        out.push_str(shown);
        out.push_str(tail);
    }
    out
}

/// A task's log: of the lines of progress only the first and the last stay, waits for a free lock go.
pub fn log(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (i, l) in lines.iter().enumerate() {
        let waited = l == " OK" || (l == "trying to acquire lock..." && lines.get(i + 1).is_some_and(|n| n == " OK"));
        let progress = |l: &str| l.starts_with("transferred ");
        let first = !out.last().is_some_and(|p| progress(p));
        if waited || (progress(l) && !first && !l.contains("(100.00%)")) {
            continue;
        }
        let again = progress(l) && out.last() == Some(l);
        let l = match l.split_once("pveupload-") {
            Some((head, tail)) => format!("{head}pveupload{}", tail.get(32..).unwrap_or_default()),
            None if l.starts_with("--20") => "--time--".to_owned(),
            None => l.clone(),
        };
        if !again {
            out.push(l);
        }
    }
    out
}

/// Where two values differ, a line each.
pub fn differences(at: &str, got: &Value, want: &Value, out: &mut Vec<String>) {
    match (got, want) {
        _ if got == want => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for k in keys {
                let none = json!("(absent)");
                differences(&format!("{at}.{k}"), a.get(k).unwrap_or(&none), b.get(k).unwrap_or(&none), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{i}]"), x, y, out);
            }
        }
        _ => out.push(format!("{at}: {got} instead of {want}")),
    }
}
