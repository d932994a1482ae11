//! `kubectl` on a node: what it asks of the cluster's API, and how it prints the answers. What the words ask for beyond
//! that is not simulated, and says so.
mod apply;
mod change;
mod create;
mod delete;
mod describe;
mod drain;
mod files;
mod get;
mod items;
mod jsonpath;
mod output;
mod pods;
mod request;
mod rollout;
mod table;
mod threeway;
mod top;
mod unknown;
mod version;
mod wait;
mod words;

use apply::Way;

use super::Call;
use crate::guest::fs::Who;
use crate::guest::k3s::version_of;

pub(super) use request::{ask, cluster};
pub(super) use table::columns;

/// Runs the command; `None` when the words ask for more than the lab's kubectl does.
pub(super) async fn run(c: &mut Call, words: &[String]) -> Option<i32> {
    let words = words::command_first(words);
    let (verb, rest) = words.split_first()?;
    if verb == "version" {
        return version::run(c, rest).await;
    }
    if unknown::is(verb) {
        return Some(c.fail(1, &unknown::told(verb)));
    }
    let known = [
        "get", "describe", "logs", "log", "exec", "apply", "create", "replace", "delete", "label", "annotate", "taint",
        "cordon", "uncordon", "drain", "scale", "patch", "set", "run", "expose", "rollout", "wait", "top",
    ];
    if !known.contains(&verb.as_str()) {
        return None;
    }
    let at = match request::server(c) {
        Ok(at) => at,
        Err(code) => return Some(code),
    };
    let at = &at;
    match verb.as_str() {
        "get" => get::run(c, at, rest).await,
        "describe" => describe::run(c, at, rest).await,
        "logs" | "log" => pods::logs(c, at, rest).await,
        "exec" => pods::exec(c, at, rest).await,
        "apply" => apply::run(c, at, rest, Way::Apply).await,
        "create" => create::run(c, at, rest).await,
        "replace" => apply::run(c, at, rest, Way::Replace).await,
        "delete" => delete::run(c, at, rest).await,
        "label" => change::marks(c, at, rest, "labels").await,
        "annotate" => change::marks(c, at, rest, "annotations").await,
        "taint" => change::taint(c, at, rest).await,
        "cordon" => change::cordon(c, at, rest, true).await,
        "uncordon" => change::cordon(c, at, rest, false).await,
        "drain" => drain::run(c, at, rest).await,
        "scale" => change::scale(c, at, rest).await,
        "patch" => change::patch(c, at, rest).await,
        "set" => change::set(c, at, rest).await,
        "run" => create::pod(c, at, rest).await,
        "expose" => create::expose(c, at, rest).await,
        "rollout" => rollout::run(c, at, rest).await,
        "wait" => wait::run(c, at, rest).await,
        _ => top::run(c, at, rest).await,
    }
}

/// The version of the `k3s` of this machine.
fn own_version(c: &Call) -> String {
    let read = c.m.files.read(&Who::root(), "/usr/local/bin/k3s").ok();
    read.and_then(|b| version_of(&b)).unwrap_or_default()
}

/// Its minor.
fn own_minor(c: &Call) -> u32 {
    own_version(c).split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}
