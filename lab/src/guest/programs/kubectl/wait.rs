//! `kubectl wait`.
use serde_json::Value;

use super::super::Call;
use super::items::{Item, named};
use super::jsonpath;
use super::request::{At, refused};
use super::words::Words;

/// What is waited for.
#[derive(Debug, PartialEq)]
enum For {
    Condition(String, String),
    Delete,
    Create,
    Path(String, Option<String>),
}

fn wish(text: &str) -> Option<For> {
    if let Some(c) = text.strip_prefix("condition=") {
        let (name, value) = c.split_once('=').unwrap_or((c, "true"));
        return Some(For::Condition(name.to_lowercase(), value.to_lowercase()));
    }
    if let Some(p) = text.strip_prefix("jsonpath=") {
        let close = p.rfind('}')?;
        let value = p[close + 1..].strip_prefix('=').map(|v| v.trim_matches(['"', '\'']).to_owned());
        return Some(For::Path(p[..=close].to_owned(), value));
    }
    match text {
        "delete" => Some(For::Delete),
        "create" => Some(For::Create),
        _ => None,
    }
}

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "for= timeout= selector/l= all all-namespaces/A")?;
    let timeout = w.wait_ms("timeout", 30_000)?;
    let Some(text) = w.value("for") else {
        return Some(c.fail(1, "error: You must provide a condition with --for"));
    };
    let Some(wish) = wish(text) else {
        let text = format!("error: unrecognized condition: \"{text}\"");
        return Some(c.fail(1, &text));
    };
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    if items.is_empty() && wish != For::Delete {
        return Some(c.fail(1, "error: no matching resources found"));
    }
    let mut code = 0;
    for item in items {
        code = code.max(one(c, at, &item, &wish, timeout).await);
    }
    Some(code)
}

async fn one(c: &mut Call, at: &At, item: &Item, wish: &For, timeout: u64) -> i32 {
    let end = c.m.lab.clock().now_ms() + timeout;
    loop {
        match item.read(c, at).await {
            Ok(v) if met(&v, wish) => {
                c.line(&format!("{} condition met", item.shown()));
                return 0;
            }
            Ok(_) => {}
            Err(v) if v["code"] == 404 => match wish {
                For::Delete => {
                    c.line(&format!("{} condition met", item.shown()));
                    return 0;
                }
                For::Create => {}
                _ => return refused(c, &v),
            },
            Err(v) => return refused(c, &v),
        }
        if c.m.lab.clock().now_ms() >= end {
            let text = format!("error: timed out waiting for the condition on {}/{}", item.kind.plural, item.name);
            return c.fail(1, &text);
        }
        c.pause(500).await;
    }
}

fn met(v: &Value, wish: &For) -> bool {
    match wish {
        For::Delete => false,
        For::Create => true,
        For::Condition(name, value) => v["status"]["conditions"].as_array().into_iter().flatten().any(|k| {
            let lower = |f: &str| k[f].as_str().unwrap_or_default().to_lowercase();
            // What a condition says of an earlier generation does not count.
            let seen = k["observedGeneration"].as_i64().or_else(|| v["status"]["observedGeneration"].as_i64());
            let late = seen.is_some_and(|g| v["metadata"]["generation"].as_i64().is_some_and(|now| g < now));
            lower("type") == *name && lower("status") == *value && !late
        }),
        For::Path(path, value) => {
            let found = jsonpath::template(path, v).unwrap_or_default();
            value.as_ref().map_or(!found.is_empty(), |want| found == *want)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_and_values_are_met() {
        let v = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let met = |t: &str| met(&v, &wish(t).unwrap());
        assert!(met("condition=Ready") && met("condition=ready=true") && !met("condition=Ready=false"));
        assert!(met("jsonpath={.status.phase}=Running") && !met("jsonpath={.status.phase}=Failed"));
        assert!(met("jsonpath={.status.phase}") && !met("jsonpath={.status.nothing}"));
        assert_eq!(wish("sometime"), None);
        let mut old = v.clone();
        old["status"]["observedGeneration"] = 1.into();
        assert!(!super::met(&old, &wish("condition=Ready").unwrap()));
    }
}
