//! `kubectl logs` and `kubectl exec` on a node.
use serde_json::Value;
use tokio::sync::mpsc;

use super::Call;
use super::kubectl::{At, ask, encoded, fetch, refused, server};
use crate::guest::shell::Chunk;
use crate::kube::container::{enter, shell};
use crate::kube::cx::with_cluster;

const JSON: &str = "application/json";

/// What the words ask for.
#[derive(Default)]
struct Wish {
    target: String,
    namespace: Option<String>,
    container: Option<String>,
    query: String,
    stdin: bool,
    tty: bool,
    argv: Vec<String>,
}

/// Reads the words; `None` for one that is not known here. What is behind `--` is the command.
fn read(words: &[String]) -> Option<Wish> {
    let mut w = Wish::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            w.argv.extend(rest.by_ref().cloned());
            break;
        }
        let (flag, inline) = match word.split_once('=') {
            Some((f, v)) if f.starts_with('-') => (f, Some(v.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || inline.clone().or_else(|| rest.next().cloned());
        match flag {
            "-n" | "--namespace" => w.namespace = value(),
            "-c" | "--container" => w.container = value(),
            "--tail" => {
                let lines = value()?;
                if lines != "-1" {
                    w.query += &format!("&tailLines={lines}");
                }
            }
            "--since" => {
                let secs = super::duration(&value()?)? / 1000;
                w.query += &format!("&sinceSeconds={}", secs.max(1));
            }
            "-p" | "--previous" => w.query += "&previous=true",
            "--timestamps" => w.query += "&timestamps=true",
            "-i" | "--stdin" => w.stdin = true,
            "-t" | "--tty" => w.tty = true,
            "-it" | "-ti" => (w.stdin, w.tty) = (true, true),
            f if f.starts_with('-') => return None,
            word if w.target.is_empty() => word.clone_into(&mut w.target),
            word => w.argv.push(word.to_owned()),
        }
    }
    Some(w)
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

/// The pod that a word names: `NAME`, `pod/NAME`, or the first one of `deploy/NAME` and its like.
async fn pod(c: &mut Call, at: &At, w: &Wish) -> Result<Value, i32> {
    let ns = w.namespace.clone().unwrap_or_else(|| "default".to_owned());
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
pub(super) async fn logs(c: &mut Call, words: &[String]) -> Option<i32> {
    let w = read(words)?;
    let at = match server(c) {
        Ok(at) => at,
        Err(code) => return Some(code),
    };
    if w.target.is_empty() {
        return Some(c.fail(1, "error: expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kubectl logs -h' for help and examples"));
    }
    let pod = match pod(c, &at, &w).await {
        Ok(p) => p,
        Err(code) => return Some(code),
    };
    let name = container(c, &pod, &w);
    let (ns, of) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
    let query = format!("container={}{}", encoded(&name), w.query);
    let (code, bytes) = fetch(c, &at, &format!("/api/v1/namespaces/{ns}/pods/{of}/log"), &query, "*/*").await;
    if code != 200 {
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        return Some(refused(c, &answer));
    }
    c.bytes(&bytes);
    Some(0)
}

/// Runs `kubectl exec`; `None` when the words ask for more than it does.
pub(super) async fn exec(c: &mut Call, words: &[String]) -> Option<i32> {
    let w = read(words)?;
    let at = match server(c) {
        Ok(at) => at,
        Err(code) => return Some(code),
    };
    if w.argv.is_empty() {
        return Some(c.fail(1, "error: you must specify at least one command for the container"));
    }
    if shell::is_shell(&w.argv) && w.tty {
        return Some(c.unsimulated("exec -it with a shell (from a machine; it works from outside)"));
    }
    let pod = match pod(c, &at, &w).await {
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
    let program = w.argv[0].clone();
    if !shell::has(&program) {
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
    if code != 0 {
        c.complain(&format!("command terminated with exit code {code}"));
    }
    Some(code)
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
        assert!(read(&words("-f web")).is_none());
    }
}
