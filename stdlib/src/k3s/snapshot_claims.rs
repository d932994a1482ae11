//! The claims of a snapshot: noted when it is saved, compared with the live ones before it is restored.
use std::collections::BTreeMap;

use serde_json::Value;

use super::connect::connect;
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::event::Change;
use crate::kubernetes::{Cluster, epoch_seconds};
use crate::ssh::Host;

/// Uid of each claim by `namespace/name`.
type Claims = BTreeMap<String, String>;

fn of(claims: &[Value]) -> Claims {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let one = |c: &Value| {
        let m = &c["metadata"];
        (format!("{}/{}", text(&m["namespace"]), text(&m["name"])), text(&m["uid"]))
    };
    claims.iter().map(one).collect()
}

/// One line a claim.
fn written(claims: &Claims) -> String {
    claims.iter().map(|(name, uid)| format!("{name} {uid}\n")).collect()
}

fn read(text: &str) -> Claims {
    text.lines().filter_map(|l| l.split_once(' ')).map(|(n, u)| (n.to_owned(), u.trim().to_owned())).collect()
}

fn file(snapshot: &str) -> String {
    format!("snapshots/{snapshot}.claims")
}

/// Notes the claims that there are while a snapshot is saved.
///
/// # Errors
/// `unreachable`, `denied`; `failed` when the state directory cannot be written.
pub(super) async fn note(ctx: &Ctx, cluster: &Cluster, snapshot: &str) -> OpResult<()> {
    let now = of(&cluster.list_in(ctx, "pvc", "").await?);
    crate::site::write_private(&ctx.state_file(&file(snapshot)), written(&now).as_bytes())
}

/// The note of a snapshot, for a copy of it.
pub(super) fn noted(ctx: &Ctx, snapshot: &str) -> Option<String> {
    std::fs::read_to_string(ctx.state_file(&file(snapshot))).ok()
}

/// How the live claims differ from those of the snapshot.
fn differences(target: &str, then: &Claims, now: &Claims) -> Vec<Change> {
    let gone = "its volume stays, the claim goes";
    let mut out = Vec::new();
    for (name, uid) in now {
        let (what, was) = match then.get(name) {
            None => (format!("claim {name} (made after the snapshot)"), gone),
            Some(old) if old != uid => {
                (format!("claim {name} (made anew after the snapshot)"), "names its old volume again")
            }
            Some(_) => continue,
        };
        out.push(Change::new(target, what, Some("present".into()), Some(was.into())));
    }
    for name in then.keys().filter(|n| !now.contains_key(*n)) {
        let what = format!("claim {name} (deleted after the snapshot)");
        out.push(Change::new(target, what, None, Some("comes back; its volume may be gone".into())));
    }
    out
}

/// Claims that differ between the snapshot and the cluster, as far as that can be known.
pub(super) async fn changes(ctx: &Ctx, hosts: &[Host], snapshot: &str, folder: Option<&str>) -> Vec<Change> {
    let beside = folder.and_then(|f| crate::flow::files::granted(ctx, f).ok());
    let beside = beside.and_then(|dir| std::fs::read_to_string(dir.join(format!("{snapshot}.claims"))).ok());
    let then = beside.or_else(|| noted(ctx, snapshot)).map(|t| read(&t));
    let live = match connect(ctx, hosts).await {
        Ok(cluster) => cluster.list_in(ctx, "pvc", "").await.ok().map(|l| (cluster.name().to_owned(), l)),
        Err(_) => None,
    };
    match (then, live) {
        (Some(then), Some((target, live))) => differences(&target, &then, &of(&live)),
        (None, Some((target, live))) => {
            let text = "gpuhost has not saved this snapshot: claims that were deleted since are not known";
            ctx.message("warn", text.to_owned());
            younger(&target, snapshot, &live)
        }
        (Some(then), None) => {
            let list: Vec<&str> = then.keys().map(String::as_str).collect();
            let text = format!(
                "the cluster does not answer: which claims differ is not known; the snapshot has {}",
                if list.is_empty() { "none".to_owned() } else { list.join(", ") }
            );
            ctx.message("warn", text);
            Vec::new()
        }
        (None, None) => {
            ctx.message(
                "warn",
                "the cluster does not answer: which claims differ from the snapshot is not known".to_owned(),
            );
            Vec::new()
        }
    }
}

/// Claims that are younger than the second in the snapshot's name.
fn younger(target: &str, snapshot: &str, live: &[Value]) -> Vec<Change> {
    let Some(taken) = snapshot.rsplit('-').next().and_then(|t| t.parse::<i64>().ok()) else { return Vec::new() };
    let made = |c: &Value| c["metadata"]["creationTimestamp"].as_str().and_then(epoch_seconds);
    let late: Vec<Value> = live.iter().filter(|c| made(c).is_some_and(|m| m > taken)).cloned().collect();
    differences(target, &Claims::new(), &of(&late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_differ_either_way_are_named() {
        let claims =
            |list: &[(&str, &str)]| list.iter().map(|(n, u)| ((*n).to_owned(), (*u).to_owned())).collect::<Claims>();
        let then = claims(&[("a/kept", "1"), ("a/gone", "2"), ("a/anew", "3")]);
        assert_eq!(read(&written(&then)), then);
        let now = claims(&[("a/kept", "1"), ("a/anew", "4"), ("a/late", "5")]);
        let said: Vec<String> = differences("lab", &then, &now).into_iter().map(|c| c.what).collect();
        assert_eq!(
            said,
            [
                "claim a/anew (made anew after the snapshot)",
                "claim a/late (made after the snapshot)",
                "claim a/gone (deleted after the snapshot)"
            ]
        );
    }
}
