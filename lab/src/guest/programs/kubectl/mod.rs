//! `kubectl` on a node: what it asks of the cluster's API, and how it prints the answers. What the words ask for beyond
//! that is not simulated, and says so.
mod account;
mod apply;
mod change;
mod create;
mod delete;
mod describe;
mod diff;
mod discovery;
mod drain;
mod edit;
mod events;
mod files;
mod get;
mod items;
mod jsonpath;
mod output;
mod pods;
mod request;
mod revisions;
mod rollout;
mod settings;
mod table;
mod top;
mod unified;
mod unknown;
mod version;
mod wait;
mod words;

use futures::future::BoxFuture;

use super::Call;
use crate::guest::fs::Who;
use crate::guest::k3s::version_of;
use apply::Way;

pub(super) use pods::{exec, logs};
pub(super) use request::{At, ask, cluster};
pub(super) use table::columns;
pub(super) use words::Words;

/// A command that talks to the server; nothing when its words ask for more than the lab's kubectl does.
type Run = for<'a> fn(&'a mut Call, &'a At, &'a [String]) -> BoxFuture<'a, Option<i32>>;

/// The commands that talk to the server.
const COMMANDS: &[(&str, Run)] = &[
    ("get", |c, at, w| Box::pin(get::run(c, at, w))),
    ("describe", |c, at, w| Box::pin(describe::run(c, at, w))),
    ("logs", |c, at, w| Box::pin(pods::logs(c, at, w))),
    ("log", |c, at, w| Box::pin(pods::logs(c, at, w))),
    ("exec", |c, at, w| Box::pin(pods::exec(c, at, w))),
    ("apply", |c, at, w| Box::pin(apply::run(c, at, w, Way::Apply))),
    ("create", |c, at, w| Box::pin(create::run(c, at, w))),
    ("diff", |c, at, w| Box::pin(diff::run(c, at, w))),
    ("edit", |c, at, w| Box::pin(edit::run(c, at, w))),
    ("replace", |c, at, w| Box::pin(apply::run(c, at, w, Way::Replace))),
    ("delete", |c, at, w| Box::pin(delete::run(c, at, w))),
    ("label", |c, at, w| Box::pin(change::marks(c, at, w, "labels"))),
    ("annotate", |c, at, w| Box::pin(change::marks(c, at, w, "annotations"))),
    ("taint", |c, at, w| Box::pin(change::taint(c, at, w))),
    ("cordon", |c, at, w| Box::pin(change::cordon(c, at, w, true))),
    ("uncordon", |c, at, w| Box::pin(change::cordon(c, at, w, false))),
    ("drain", |c, at, w| Box::pin(drain::run(c, at, w))),
    ("scale", |c, at, w| Box::pin(change::scale(c, at, w))),
    ("autoscale", |c, at, w| Box::pin(settings::autoscale(c, at, w))),
    ("patch", |c, at, w| Box::pin(change::patch(c, at, w))),
    ("set", |c, at, w| Box::pin(change::set(c, at, w))),
    ("run", |c, at, w| Box::pin(create::pod(c, at, w))),
    ("expose", |c, at, w| Box::pin(create::expose(c, at, w))),
    ("rollout", |c, at, w| Box::pin(rollout::run(c, at, w))),
    ("wait", |c, at, w| Box::pin(wait::run(c, at, w))),
    ("top", |c, at, w| Box::pin(top::run(c, at, w))),
    ("events", |c, at, w| Box::pin(events::run(c, at, w))),
    ("api-resources", |c, at, w| Box::pin(discovery::kinds(c, at, w))),
    ("api-versions", |c, at, w| Box::pin(discovery::versions(c, at, w))),
    ("cluster-info", |c, at, w| Box::pin(discovery::cluster(c, at, w))),
    ("auth", |c, at, w| Box::pin(account::auth(c, at, w))),
];

/// Runs the command; `None` when the words ask for more than the lab's kubectl does.
pub(super) async fn run(c: &mut Call, words: &[String]) -> Option<i32> {
    let words = words::command_first(words);
    let (verb, rest) = words.split_first()?;
    match verb.as_str() {
        "version" => return version::run(c, rest).await,
        "config" => return account::config(c, rest),
        _ if unknown::is(verb) => return Some(c.fail(1, &unknown::told(verb))),
        _ => {}
    }
    let (_, does) = COMMANDS.iter().find(|(name, _)| name == verb)?;
    let at = match request::server(c) {
        Ok(at) => at,
        Err(code) => return Some(code),
    };
    does(c, &at, rest).await
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
