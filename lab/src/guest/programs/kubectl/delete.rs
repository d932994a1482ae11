//! `kubectl delete`.
use http::Method;
use serde_json::{Value, json};

use super::super::Call;
use super::files::documents;
use super::items::{Item, kind_of, named};
use super::output::Dry;
use super::request::{At, Change, Form, refusal, refused};
use super::words::Words;

const OPTIONS: &str = "filename/f= recursive/R selector/l= all all-namespaces/A ignore-not-found wait now force grace-period= \
    cascade= timeout= dry-run output/o=";

/// The minor of Kubernetes whose kubectl names the namespace.
const NAMES_NAMESPACE: u32 = 34;

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, OPTIONS)?;
    let dry = Dry::of(&w)?;
    let timeout = w.wait_ms("timeout", 0)?;
    if w.value("output").is_some_and(|o| o != "name") {
        return None;
    }
    let found = match w.value("filename") {
        Some(_) => of_files(c, at, &w).await.transpose()?,
        None => named(c, at, &w, &w.bare).await.map(|l| l.into_iter().map(|i| (i, String::new())).collect()),
    };
    let items = match found {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    if items.is_empty() {
        c.line("No resources found");
        return Some(0);
    }
    let Some(body) = options(c, &w) else { return Some(1) };
    let (mut code, mut going) = (0, Vec::new());
    for (item, doing) in items {
        match gone(c, at, &w, dry, &item, &body).await {
            Ok(uid) => going.extend(uid.map(|u| (item, u))),
            Err(v) if v["code"] == 404 && w.on("ignore-not-found") => {}
            Err(v) => {
                let text = refusal(&v, &doing);
                code = c.fail(1, &text);
            }
        }
    }
    if dry == Dry::No && !w.off("wait") && !(w.on("force") && w.value("grace-period") == Some("0")) {
        code = code.max(wait(c, at, &going, timeout).await);
    }
    Some(code)
}

/// The objects of `-f`, each with what stands before a refusal.
async fn of_files(c: &mut Call, at: &At, w: &Words) -> Result<Option<Vec<(Item, String)>>, i32> {
    let Some(all) = documents(c, w, false).await? else { return Ok(None) };
    let mut out = Vec::new();
    for d in all {
        let Some(kind) = kind_of(c, at, &d.object) else { return Err(c.fail(1, &d.unmapped())) };
        let meta = &d.object["metadata"];
        let ns = meta["namespace"].as_str().map_or_else(|| w.namespace(), str::to_owned);
        out.push((
            Item::new(kind, &ns, meta["name"].as_str().unwrap_or_default()),
            format!("error when deleting \"{}\"", d.from),
        ));
    }
    Ok(Some(out))
}

/// The options of the request, with kubectl's warning about force.
fn options(c: &mut Call, w: &Words) -> Option<Value> {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": match w.value("cascade") {
        None | Some("background" | "true") => "Background",
        Some("foreground") => "Foreground",
        Some("orphan" | "false") => "Orphan",
        Some(other) => {
            let text = format!("error: invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"");
            c.complain(&text);
            return None;
        }
    }});
    let grace = if w.on("now") { Some("1") } else { w.value("grace-period") };
    let grace = grace.or(w.on("force").then_some("0")).and_then(|g| g.parse::<i64>().ok()).filter(|g| *g >= 0);
    if grace == Some(0) && !w.on("force") {
        // Kubectl leaves a second unless it is told to force.
        body["gracePeriodSeconds"] = 1.into();
    } else if let Some(g) = grace {
        body["gracePeriodSeconds"] = g.into();
    }
    if w.on("force") {
        c.complain("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.");
    }
    Some(body)
}

/// Asks the server to delete; the uid of what goes.
async fn gone(
    c: &mut Call,
    at: &At,
    w: &Words,
    dry: Dry,
    item: &Item,
    options: &Value,
) -> Result<Option<String>, Value> {
    let before = item.read(c, at).await?;
    if dry != Dry::Client {
        let path = item.path();
        let query = dry.query().trim_start_matches('&');
        Change { method: Method::DELETE, path: &path, query, form: Form::Plain, body: options }.send(c, at).await?;
    }
    if w.value("output") == Some("name") {
        c.line(&item.shown());
    } else {
        let how = if w.on("force") { "force deleted" } else { "deleted" };
        let place = item.namespace.as_ref().filter(|_| super::own_minor(c) >= NAMES_NAMESPACE);
        let place = place.map_or_else(String::new, |ns| format!(" from {ns} namespace"));
        c.line(&format!("{} \"{}\" {how}{place}{}", item.typed(), item.name, dry.mark()));
    }
    Ok(before["metadata"]["uid"].as_str().map(str::to_owned))
}

/// Waits until every object is gone, or another one of its name is there.
async fn wait(c: &mut Call, at: &At, going: &[(Item, String)], timeout: u64) -> i32 {
    let end = c.m.lab.clock().now_ms() + timeout;
    for (item, uid) in going {
        loop {
            match item.read(c, at).await {
                Ok(v) if v["metadata"]["uid"] == uid.as_str() => {}
                Ok(_) => break,
                Err(v) if v["code"] == 404 => break,
                Err(v) => return refused(c, &v),
            }
            if timeout > 0 && c.m.lab.clock().now_ms() >= end {
                let text =
                    format!("error: timed out waiting for the condition on {}/{}", item.kind.resource(), item.name);
                return c.fail(1, &text);
            }
            c.pause(500).await;
        }
    }
    0
}
