//! `kubectl logs` and `kubectl exec` on a node.
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::Call;
use super::items::encoded;
use super::request::{At, JSON, ask, fetch, refused};
use super::words::Words;
use crate::guest::shell::Chunk;
use crate::kube::api::stream::terminal;
use crate::kube::container::{Inside, enter, shell};
use crate::kube::cx::with_cluster;

/// The channel of a stream that carries what is written to standard error.
const STDERR: u8 = 2;

/// What the words ask for.
struct Wish {
    target: String,
    namespace: String,
    container: Option<String>,
    query: String,
    stdin: bool,
    tty: bool,
    follow: bool,
    argv: Vec<String>,
}

/// Reads the words; `None` for one that is not known here. What is behind `--` is the command.
fn read(words: &[String]) -> Option<Wish> {
    const OPTIONS: &str = "container/c= tail= since= previous/p timestamps stdin/i tty/t follow/f quiet/q";
    let w = Words::read(words, OPTIONS)?;
    let mut query = String::new();
    if let Some(lines) = w.value("tail").filter(|l| *l != "-1") {
        query += &format!("&tailLines={lines}");
    }
    if w.value("since").is_some() {
        query += &format!("&sinceSeconds={}", (w.wait_ms("since", 0)? / 1000).max(1));
    }
    for switch in ["previous", "timestamps"] {
        if w.on(switch) {
            query += &format!("&{switch}=true");
        }
    }
    let mut bare = w.bare.iter().cloned();
    Some(Wish {
        target: bare.next().unwrap_or_default(),
        namespace: w.namespace(),
        // `logs POD CONTAINER` and `logs POD -c CONTAINER`.
        container: w.value("container").map(str::to_owned).or_else(|| bare.next()),
        query,
        stdin: w.on("stdin"),
        tty: w.on("tty"),
        follow: w.on("follow"),
        argv: w.rest,
    })
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

/// The pod that a word names: `NAME`, `pod/NAME`, or the first one of `deploy/NAME` and its like.
async fn pod(c: &mut Call, at: &At, w: &Wish, logs: bool) -> Result<Value, i32> {
    let ns = &w.namespace;
    let (kind, name) = w.target.split_once('/').unwrap_or(("pod", &w.target));
    let plural = match kind {
        "pod" | "pods" | "po" => None,
        "deploy" | "deployment" | "deployments" => Some("deployments"),
        "ds" | "daemonset" | "daemonsets" => Some("daemonsets"),
        "sts" | "statefulset" | "statefulsets" => Some("statefulsets"),
        other => {
            let why = format!("error: the server doesn't have a resource type \"{other}\"");
            return Err(c.fail(1, &why));
        }
    };
    let path = match plural {
        None => format!("/api/v1/namespaces/{ns}/pods/{name}"),
        Some(p) => format!("/apis/apps/v1/namespaces/{ns}/{p}/{name}"),
    };
    let (code, found) = ask(c, at, &path, "", JSON).await;
    if code == 404 && logs && plural.is_none() {
        let why = format!("error: error from server (NotFound): {} in namespace \"{ns}\"", text(&found["message"]));
        return Err(c.fail(1, &why));
    }
    if code != 200 {
        return Err(refused(c, &found));
    }
    if plural.is_none() {
        return Ok(found);
    }
    let labels = found["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let selector: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
    let query = format!("labelSelector={}", encoded(&selector.join(",")));
    let (_, list) = ask(c, at, &format!("/api/v1/namespaces/{ns}/pods"), &query, JSON).await;
    match list["items"].get(0) {
        Some(p) => Ok(p.clone()),
        None => {
            let why = format!("error: no pods found for {}", w.target);
            Err(c.fail(1, &why))
        }
    }
}

/// The container that is meant; kubectl says so where it chose.
fn container(c: &mut Call, pod: &Value, w: &Wish) -> String {
    if let Some(name) = &w.container {
        return name.clone();
    }
    let names = |at: &str| -> Vec<String> {
        pod["spec"][at].as_array().into_iter().flatten().map(|x| text(&x["name"])).collect()
    };
    let own = names("containers");
    let first = own.first().cloned().unwrap_or_default();
    let init: Vec<String> = names("initContainers").into_iter().map(|n| format!("{n} (init)")).collect();
    if own.len() + init.len() > 1 {
        let all: Vec<String> = own.into_iter().chain(init).collect();
        c.complain(&format!("Defaulted container \"{first}\" out of: {}", all.join(", ")));
    }
    first
}

/// Runs `kubectl logs`; `None` when the words ask for more than it does.
pub(in super::super) async fn logs(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = read(words).filter(|w| !w.stdin && !w.tty && w.argv.is_empty())?;
    if w.target.is_empty() {
        return Some(c.fail(1, "error: expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kubectl logs -h' for help and examples"));
    }
    let pod = match pod(c, at, &w, true).await {
        Ok(p) => p,
        Err(code) => return Some(code),
    };
    let name = container(c, &pod, &w);
    let (ns, of) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
    let path = format!("/api/v1/namespaces/{ns}/pods/{of}");
    let query = format!("container={}{}", encoded(&name), w.query);
    let (code, bytes) = fetch(c, at, &format!("{path}/log"), &query, "*/*").await;
    if code != 200 {
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        return Some(refused(c, &answer));
    }
    c.bytes(&bytes);
    if w.follow && !w.query.contains("previous") {
        follow(c, at, &path, &name).await;
    }
    Some(0)
}

/// Prints what a container goes on to write, until it ends.
async fn follow(c: &mut Call, at: &At, pod: &str, container: &str) {
    let query = format!("container={}", encoded(container));
    let log = format!("{pod}/log");
    let mut seen = fetch(c, at, &log, &query, "*/*").await.1.len();
    loop {
        let (code, now) = ask(c, at, pod, "", JSON).await;
        let all = now["status"]["containerStatuses"].as_array();
        let runs = all.into_iter().flatten().any(|s| s["name"] == container && s["state"]["running"].is_object());
        let (_, bytes) = fetch(c, at, &log, &query, "*/*").await;
        if code == 200 && bytes.len() > seen {
            c.bytes(&bytes[seen..]);
            seen = bytes.len();
        }
        if code != 200 || !runs || c.flush().await.is_err() {
            return;
        }
        c.next_look(1000).await;
    }
}

/// Runs `kubectl exec`; `None` when the words ask for more than it does.
pub(in super::super) async fn exec(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = read(words).filter(|w| w.query.is_empty() && !w.follow)?;
    if w.argv.is_empty() {
        let text = if w.container.is_some() {
            "error: exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kubectl exec -h' for help and examples"
        } else {
            "error: you must specify at least one command for the container"
        };
        return Some(c.fail(1, text));
    }
    let pod = match pod(c, at, &w, false).await {
        Ok(p) => p,
        Err(code) => return Some(code),
    };
    let name = container(c, &pod, &w);
    let running = |s: &Value| s["name"] == name.as_str() && s["state"]["running"].is_object();
    if !pod["status"]["containerStatuses"].as_array().is_some_and(|l| l.iter().any(running)) {
        let why =
            format!("error: Internal error occurred: unable to upgrade connection: container not found (\"{name}\")");
        return Some(c.fail(1, &why));
    }
    let lab = c.m.lab.clone();
    let inside = lab.with(|world| with_cluster(&lab, world, &at.0, |cx| enter(cx, &pod, &name))).flatten()?;
    let tty = w.tty && w.stdin && c.tty;
    if w.tty && w.stdin && !c.tty {
        c.complain("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    if shell::is_shell(&w.argv) && w.stdin {
        let code = talk(c, &inside, &w.argv, tty).await;
        return Some(ended(c, code));
    }
    let program = w.argv[0].clone();
    if !shell::is_in(&program, inside.gpus.is_some()) {
        let answer = crate::kube::api::stream::exec::missing(&program);
        let why = format!("error: {}", text(&answer["message"]));
        return Some(c.fail(1, &why));
    }
    let input = if w.stdin { c.read_all().await } else { Vec::new() };
    let _ = c.flush().await;
    let (tx, mut rx) = mpsc::channel(64);
    let (out, err) = c.outputs();
    let pass = async {
        while let Some(chunk) = rx.recv().await {
            let done = match chunk {
                Chunk::Out(b) => out.write_all(&b).await,
                Chunk::Err(b) => err.write_all(&b).await,
            };
            if done.is_err() {
                return;
            }
        }
    };
    let work = async move { shell::run(&inside, &w.argv, shell::Input::Bytes(input), &tx).await };
    let (code, ()) = tokio::join!(work, pass);
    Some(ended(c, code))
}

/// Says that a command has failed.
fn ended(c: &mut Call, code: i32) -> i32 {
    if code != 0 {
        c.complain(&format!("command terminated with exit code {code}"));
    }
    code
}

/// A shell of the container that reads what comes on standard input.
async fn talk(c: &mut Call, inside: &Inside, argv: &[String], tty: bool) -> i32 {
    let _ = c.flush().await;
    let ((lines, rx), (say, mut said)) = (mpsc::channel(64), mpsc::channel::<(u8, Vec<u8>)>(64));
    let (input, (out, err)) = (c.input(), c.outputs());
    let read = async move {
        while let Ok(Some(b)) = input.read_chunk().await {
            if lines.send(b.to_vec()).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((channel, b)) = said.recv().await {
            // The session's own terminal ends lines.
            let text = if tty { String::from_utf8_lossy(&b).replace("\r\n", "\n").into_bytes() } else { b };
            let to = if channel == STDERR { &err } else { &out };
            if to.write_all(&text).await.is_err() {
                return;
            }
        }
    };
    let work = async move { terminal::serve(inside, argv, rx, &say, tty).await };
    tokio::select! { biased;
        (code, ()) = async { tokio::join!(work, write) } => code,
        () = async { read.await; std::future::pending().await } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let words = |t: &str| t.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let w = read(&words("-n kube-system deploy/coredns --tail=5 -p")).unwrap();
        assert_eq!((w.target.as_str(), w.query.as_str()), ("deploy/coredns", "&tailLines=5&previous=true"));
        let w = read(&words("-it web -c app -- sh -c ls")).unwrap();
        assert!(w.stdin && w.tty && w.argv == ["sh", "-c", "ls"] && w.container.as_deref() == Some("app"));
        assert!(read(&words("-f web app")).is_some_and(|w| w.follow && w.container.as_deref() == Some("app")));
        assert!(read(&words("--prefix web")).is_none());
    }
}
