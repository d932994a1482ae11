//! `kubectl events`. Grade: source.
use serde_json::Value;

use super::super::Call;
use super::items::kind;
use super::request::{At, JSON, ask, refused};
use super::table::columns;
use super::words::Words;
use crate::kube::api::table::age;
use crate::kube::store::meta::parse_time;

/// When an event was last seen, and how often since when.
struct Seen {
    last: u64,
    first: u64,
    count: u64,
}

impl Seen {
    fn of(e: &Value) -> Seen {
        let at = |p: &str| e.pointer(p).and_then(Value::as_str).and_then(parse_time);
        let first = at("/firstTimestamp").or_else(|| at("/eventTime")).unwrap_or(0);
        let last = at("/series/lastObservedTime").or_else(|| at("/lastTimestamp")).unwrap_or(first);
        let count = e.pointer("/series/count").or_else(|| e.get("count")).and_then(Value::as_u64).unwrap_or(1);
        Seen { last, first, count }
    }

    fn shown(&self, now: u64) -> String {
        let since = |t: u64| age(now.saturating_sub(t));
        if self.count > 1 {
            format!("{} (x{} over {})", since(self.last), self.count, since(self.first))
        } else {
            since(self.last)
        }
    }
}

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "all-namespaces/A for= types= no-headers").filter(|w| w.bare.is_empty())?;
    let all = w.on("all-namespaces");
    let mut about = None;
    if let Some(object) = w.value("for") {
        let (word, name) = object.split_once('/')?;
        let Some(kind) = kind(c, &at.0, word) else {
            let text = format!("the server doesn't have a resource type \"{word}\"");
            return Some(c.fail(1, &text));
        };
        about = Some((kind.kind.clone(), name.to_owned()));
    }
    let path = if all { "/api/v1/events".to_owned() } else { format!("/api/v1/namespaces/{}/events", w.namespace()) };
    let (code, list) = ask(c, at, &path, "", JSON).await;
    if code != 200 {
        return Some(refused(c, &list));
    }
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let types: Vec<String> = w.all("types").flat_map(|t| t.split(',')).map(str::to_lowercase).collect();
    let wanted = |e: &&Value| {
        let object = &e["involvedObject"];
        about.as_ref().is_none_or(|(kind, name)| object["kind"] == kind.as_str() && object["name"] == name.as_str())
            && (types.is_empty() || types.contains(&text(&e["type"]).to_lowercase()))
    };
    let mut events: Vec<(Seen, &Value)> =
        list["items"].as_array().into_iter().flatten().filter(wanted).map(|e| (Seen::of(e), e)).collect();
    events.sort_by_key(|(seen, _)| seen.last);
    if events.is_empty() {
        let text = if all {
            "No events found.".to_owned()
        } else {
            format!("No events found in {} namespace.", w.namespace())
        };
        c.complain(&text);
        return Some(0);
    }
    let now = c.m.lab.clock().now_ms();
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !w.on("no-headers") {
        let first: &[&str] = if all { &["NAMESPACE"] } else { &[] };
        let heads = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
        rows.push(first.iter().chain(&heads).map(|h| (*h).to_owned()).collect());
    }
    for (seen, e) in events {
        let mut row = if all { vec![text(&e["metadata"]["namespace"])] } else { Vec::new() };
        let object = format!("{}/{}", text(&e["involvedObject"]["kind"]), text(&e["involvedObject"]["name"]));
        row.extend([
            seen.shown(now),
            text(&e["type"]),
            text(&e["reason"]),
            object,
            text(&e["message"]).trim().to_owned(),
        ]);
        rows.push(row);
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    Some(0)
}
