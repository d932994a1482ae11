//! `gpuhost lab fault`, `gpuhost lab commit` and `gpuhost lab push`: what happens to a lab that nobody's recipe does.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gpuhost_lab::kube::controllers::{fleet, registry};
use gpuhost_lab::{Lab, git, incidents};
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::options::closest;
use gpuhost_stdlib::site::Site;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::closing::Said;
use super::folder::{Folder, Locked};
use super::join::{SERVING, Serving};
use super::{InProcess, routes, world};
use crate::args::{CommitArgs, FaultArgs, PushArgs};
use crate::screen::Screen;

/// How long an incident has been going on before anybody looks: lab time for its symptoms to show.
const UNNOTICED: Duration = Duration::from_secs(15 * 60);

/// Something that happens to a lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Nothing: what there is now, as JSON.
    Look,
    /// Nothing: what it stood in for and which behaviours were met, as JSON.
    Said,
    /// An incident, `name@target`.
    Fault(String),
    /// What only hands can do about one.
    ByHand(String),
    /// Images that registries have from now on.
    Push(Vec<String>),
    /// A commit to a repository.
    Commit {
        /// Address of the repository.
        url: String,
        /// Branch.
        branch: String,
        /// Folder that is replaced.
        folder: String,
        /// Its files.
        files: BTreeMap<String, String>,
        /// Message.
        message: String,
    },
}

/// Does it to a running lab; says what was done.
///
/// # Errors
/// Why it cannot be done.
pub fn carry_out(lab: &Lab, order: &Order) -> Result<String, String> {
    match order {
        Order::Look => Ok(lab.with(|w| super::view::look(w)).to_string()),
        Order::Said => serde_json::to_string(&Said::by(lab)).map_err(|e| e.to_string()),
        Order::Fault(text) => incidents::make(lab, text).map(|f| format!("{text}: {}", f.what)),
        Order::ByHand(text) => incidents::by_hand(lab, text).map(|()| format!("{text}: done by hand")),
        Order::Push(all) => {
            lab.with(|w| w.pushed.extend(all.iter().map(|i| registry::pushed_as(i))));
            Ok(format!("pushed: {}", all.join(", ")))
        }
        Order::Commit { url, branch, folder, files, message } => lab.with(|w| {
            let before = git::remote(w, url).and_then(|r| r.branches.get(branch)).map(|c| c.files.clone());
            let id = git::commit(lab, w, url, branch, folder, files.clone(), message)?;
            let after = git::remote(w, url).and_then(|r| r.branches.get(branch)).map(|c| c.files.clone());
            let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
            let changed = changed_paths(&before, &after);
            let mut said = format!("commit {} on {branch} of {url}", &id[..8]);
            for warning in super::lost::warnings(&before, &after) {
                said += &format!("\n{warning}");
            }
            if let Some(note) = unseen(&fleet::followed(w, url, branch), &changed) {
                said += &format!("\n{note}");
            }
            Ok(said)
        }),
    }
}

/// Paths whose text differs.
fn changed_paths(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    all.into_iter().filter(|p| before.get(*p) != after.get(*p)).cloned().collect()
}

/// What is to be said of a commit that Fleet does not see: nobody follows the branch, or nothing below what it watches.
fn unseen(followed: &[(String, Vec<String>)], changed: &[String]) -> Option<String> {
    let below = |p: &str, root: &str| root.is_empty() || p.strip_prefix(root).is_some_and(|r| r.starts_with('/'));
    let seen = |paths: &[String]| changed.iter().any(|c| paths.iter().any(|p| below(c, p.trim_matches('/'))));
    match followed {
        _ if changed.is_empty() => Some("nothing differs from the commit before: Fleet changes nothing".to_owned()),
        [] => Some(
            "no GitRepo of the lab follows this branch yet: `gpuhost run recipes/deploy.rhai --lab` makes it"
                .to_owned(),
        ),
        all if all.iter().any(|(_, paths)| seen(paths)) => None,
        all => {
            let watched: Vec<String> =
                all.iter().map(|(name, paths)| format!("{name} watches {}", paths.join(", "))).collect();
            Some(format!(
                "Fleet changes nothing: {}, and nothing below it differs. Another place in the repository: `--path`, other \
                 folders to watch: `paths` of [platform.fleet]",
                watched.join("; ")
            ))
        }
    }
}

/// Gives the order to the lab of `site`, wherever it runs.
fn give(rt: &tokio::runtime::Handle, state_dir: &Path, site: &Arc<Site>, order: &Order) -> OpResult<String> {
    let refused = |e: String| OpError::invalid(e).hint("gpuhost lab fault --list");
    match Folder::lock(state_dir, site)? {
        Locked::Elsewhere(folder) => served(&folder, order).and_then(|r| r.map_err(refused)),
        Locked::Mine(folder) => {
            let world = world::of(&folder, site)?;
            let sink = Arc::new(routes::Feed(Routes::default()));
            let here = InProcess::start(rt, folder, world, sink)?;
            let done = carry_out(here.lab(), order);
            if done.is_ok() {
                let clock = here.lab().clock().clone();
                rt.block_on(async move { clock.sleep(UNNOTICED).await });
            }
            here.close()?;
            done.map_err(refused)
        }
    }
}

/// What a served lab is now.
///
/// # Errors
/// When it does not answer.
pub fn look(folder: &Folder) -> OpResult<serde_json::Value> {
    told(served(folder, &Order::Look)?)
}

/// Which behaviours a served lab has met so far.
///
/// # Errors
/// When it does not answer.
pub fn met(folder: &Folder) -> OpResult<std::collections::BTreeSet<String>> {
    told(served(folder, &Order::Said)?).map(|said: Said| said.met)
}

/// What a lab's answer to an order says.
fn told<T: serde::de::DeserializeOwned>(answer: Result<String, String>) -> OpResult<T> {
    let text = answer.map_err(OpError::failed)?;
    serde_json::from_str(&text)
        .map_err(|e| OpError::failed("the served lab says nothing of itself").because(e.to_string()))
}

fn served(folder: &Folder, order: &Order) -> OpResult<Result<String, String>> {
    let text = std::fs::read_to_string(folder.dir().join(SERVING)).map_err(|_| folder.busy())?;
    let serving: Serving = serde_json::from_str(&text).map_err(|_| folder.busy())?;
    at(&serving.control, order)
}

/// What the lab that takes orders at `control` stood in for.
///
/// # Errors
/// When it does not answer.
pub fn said(control: &str) -> OpResult<Said> {
    told(at(control, &Order::Said)?)
}

fn at(control: &str, order: &Order) -> OpResult<Result<String, String>> {
    let lost = |e: &dyn std::fmt::Display| {
        OpError::unreachable("the served lab does not answer")
            .because(e.to_string())
            .hint("is `gpuhost lab serve` still running?")
    };
    let mut stream = TcpStream::connect(control).map_err(|e| lost(&e))?;
    let line = serde_json::to_string(order).unwrap_or_default();
    writeln!(stream, "do {line}").map_err(|e| lost(&e))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| lost(&e))?;
        if let Some(answer) = line.strip_prefix("did ") {
            return serde_json::from_str(answer).map_err(|e| lost(&e));
        }
    }
    Err(lost(&"the connection ended"))
}

/// `gpuhost lab fault`.
///
/// # Errors
/// When there is no such fault or target.
pub fn fault(
    args: &FaultArgs,
    rt: &tokio::runtime::Handle,
    screen: &Screen,
    site: &Arc<Site>,
    state_dir: &Path,
) -> OpResult<()> {
    if args.by_hand && args.fault.is_none() {
        return Err(OpError::usage("`--by-hand` needs the fault that hands are to mend")
            .hint("gpuhost lab fault NAME@TARGET --by-hand"));
    }
    let Some(text) = args.fault.as_ref().filter(|_| !args.list) else {
        list(args, screen);
        return Ok(());
    };
    let known = known(text)?;
    let order = if args.by_hand { Order::ByHand(text.clone()) } else { Order::Fault(text.clone()) };
    let said = give(rt, state_dir, site, &order)?;
    screen.out(&format!("[LAB] {said}"));
    if known.hands.is_some() && !args.by_hand {
        screen.out(&format!(
            "[LAB] no command alone mends it: `gpuhost lab fault {text} --by-hand` stands in for the hands"
        ));
    }
    Ok(())
}

/// The fault that a command names.
fn known(text: &str) -> OpResult<&'static incidents::Fault> {
    incidents::find(text).map(|(fault, _)| fault).map_err(|e| {
        let name = text.split('@').next().unwrap_or_default();
        let names = || incidents::catalogue().map(|f| f.name);
        let hint = match closest(name, names()).filter(|_| !names().any(|n| n == name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`gpuhost lab fault --list` names them and their targets".to_owned(),
        };
        OpError::usage(e).hint(hint)
    })
}

fn list(args: &FaultArgs, screen: &Screen) {
    for f in incidents::catalogue() {
        if args.json {
            let row = json!({"name": f.name, "on": f.on.word(), "what": f.what, "source": f.source, "hands": f.hands.is_some()});
            screen.out(&row.to_string());
        } else {
            screen.out(&format!("{:<44} {}", format!("{}@{}", f.name, f.on.word()), f.what));
        }
    }
}

/// `gpuhost lab commit`.
///
/// # Errors
/// When the folder cannot be read or the site follows no repository.
pub fn commit(
    args: &CommitArgs,
    rt: &tokio::runtime::Handle,
    screen: &Screen,
    site: &Arc<Site>,
    state_dir: &Path,
) -> OpResult<()> {
    let Some((url, branch)) = world::repository(site) else {
        return Err(
            OpError::invalid("the site follows no repository").hint("add [platform.fleet] with `repo` and `branch`")
        );
    };
    let folder = args.path.clone().unwrap_or_else(|| args.folder.display().to_string());
    let folder = folder.trim_start_matches("./").trim_matches('/').to_owned();
    let mut files = BTreeMap::new();
    read_folder(&args.folder, &folder, &mut files)?;
    for (name, text) in files.iter().filter(|(n, _)| n.ends_with(".yaml") || n.ends_with(".yml")) {
        for fault in gpuhost_stdlib::kubernetes::file_faults(name, text) {
            screen.out(&format!("[LAB] warning: {fault}"));
        }
    }
    let said = give(rt, state_dir, site, &Order::Commit { url, branch, folder, files, message: args.message.clone() })?;
    screen.out(&format!("[LAB] {said}"));
    Ok(())
}

/// `gpuhost lab push`.
///
/// # Errors
/// When the lab does not answer.
pub fn push(
    args: &PushArgs,
    rt: &tokio::runtime::Handle,
    screen: &Screen,
    site: &Arc<Site>,
    state_dir: &Path,
) -> OpResult<()> {
    if let Some((image, why)) = args.images.iter().find_map(|i| registry::unreadable(i).map(|why| (i, why))) {
        return Err(OpError::usage(format!("`{image}` is no image: {why}")).hint("gpuhost lab push ghcr.io/me/app:v1"));
    }
    let said = give(rt, state_dir, site, &Order::Push(args.images.clone()))?;
    screen.out(&format!("[LAB] {said}"));
    Ok(())
}

fn read_folder(dir: &Path, as_path: &str, files: &mut BTreeMap<String, String>) -> OpResult<()> {
    let fail =
        |e: std::io::Error| OpError::not_found(format!("cannot read `{}`", dir.display())).because(e.to_string());
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let at = format!("{as_path}/{name}");
        if path.is_dir() {
            read_folder(&path, &at, files)?;
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            files.insert(at, text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_fleet_does_not_see_says_so() {
        let files = |list: &[(&str, &str)]| list.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        let (before, after) =
            (files(&[("a/x", "1"), ("b/y", "1")]), files(&[("a/x", "2"), ("b/y", "1"), ("c/z", "1")]));
        let changed = changed_paths(&before, &after);
        assert_eq!(changed, ["a/x", "c/z"]);
        let watching = |paths: &[&str]| vec![("lab".to_owned(), paths.iter().map(|p| (*p).to_owned()).collect())];
        assert_eq!(unseen(&watching(&["a"]), &changed), None);
        assert_eq!(unseen(&watching(&[""]), &changed), None);
        assert!(unseen(&watching(&["b", "cc"]), &changed).is_some_and(|t| t.contains("lab watches b, cc")));
        assert!(unseen(&[], &changed).is_some_and(|t| t.contains("no GitRepo")));
        assert!(unseen(&watching(&["a"]), &[]).is_some_and(|t| t.contains("nothing differs")));
    }
}
