//! Config strings: what the typed builders and parsers say against the recordings of the real server.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test stops at the first surprise
use gpuhost_stdlib::wire::pve::props;
use serde_json::Value;

/// A parsed property as the server's parser gives it: numbers and flags as JSON numbers.
fn same_value(have: &str, want: &Value) -> bool {
    match want {
        Value::Number(n) => {
            have == n.to_string() || props::disk_size(have).map(|b| b.to_string()) == Some(n.to_string())
        }
        Value::String(s) => have == s,
        _ => false,
    }
}

/// What differs between our parse and the recorded one; `but` are keys that the server adds by itself.
fn parse_differs(key: &str, text: &str, want: &Value, but: &[&str]) -> Option<String> {
    let want = want.as_object()?;
    let have = match props::parse(key, text) {
        Ok(p) => p,
        Err(e) => return Some(format!("refused: {e}")),
    };
    let missing = want
        .iter()
        .filter(|(k, _)| !but.contains(&k.as_str()))
        .find(|(k, v)| !have.get(*k).is_some_and(|h| same_value(h, v)));
    let extra = have.keys().find(|k| !want.contains_key(*k));
    match (missing, extra) {
        (None, None) => None,
        (m, e) => Some(format!("parsed {have:?}, recorded {want:?} (missing {m:?}, extra {e:?})")),
    }
}

fn differs(d: &Value) -> Option<String> {
    let (key, text) = (d["k"].as_str().unwrap(), d["v"].as_str().unwrap());
    let verdict = props::check(key, text).err();
    for when in ["create", "update"] {
        let want = d[when]["errors"][key].as_str();
        if verdict.as_deref() != want || d[when]["ok"].as_bool() != Some(verdict.is_none()) {
            return Some(format!("{when}: {verdict:?}, recorded {want:?}"));
        }
        // What is accepted is stored as it was written: only the printed form is canonical.
        if let Some(norm) = d[when]["norm"].as_str().filter(|n| *n != text) {
            return Some(format!("{when}: stored as {norm}"));
        }
    }
    if let (Some(printed), true) = (d["print"].as_str(), props::format_of(key).is_some()) {
        let ours = props::parse(key, text).map_or_else(|e| e, |p| props::print(key, &p));
        if ours != printed {
            return Some(format!("prints {ours}, recorded {printed}"));
        }
        // The printed form reads back as itself.
        let again = props::parse(key, &ours).map_or_else(|e| e, |p| props::print(key, &p));
        if again != ours {
            return Some(format!("{ours} prints {again}"));
        }
    }
    if let (Some(want), Some(f)) = (d["parse_error"].as_str(), props::format_of(key)) {
        let ours = f.parse(text, "").err();
        if ours.as_deref() != Some(want) {
            return Some(format!("parser says {ours:?}, recorded {want}"));
        }
    }
    parse_differs(key, text, &d["parsed"], &[])
        .or_else(|| parse_differs(key, text, &d["net"], &[]))
        .or_else(|| parse_differs(key, text, &d["drive"], &["index", "interface"]))
}

#[test]
fn every_recorded_string_is_taken_refused_and_printed_alike() {
    let path = gpuhost_tests::root().join("../shared/data/pve/config-strings.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: no recorded config strings at ../shared/data/pve beside the checkout");
        return;
    };
    let all: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let wrong: Vec<String> =
        all.iter().filter_map(|d| differs(d).map(|why| format!("{}={}: {why}", d["k"], d["v"]))).collect();
    println!("config strings: {} of {}", all.len() - wrong.len(), all.len());
    assert!(wrong.is_empty() && all.len() >= 255, "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}
