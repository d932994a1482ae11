//! `crictl` on a node: what its kubelet has told the cluster's API. Grade: docs (cri-tools), for what is shown.
use serde_json::{Value, json};

use super::Call;
use super::kubectl::{At, Words, ask, cluster, columns, exec, logs};
use crate::guest::fs::Who;
use crate::kube::api::metrics::usage;
use crate::kube::controllers::status::every;
use crate::kube::text::sha256;

/// What the lists can be told to leave out, and their forms.
const LISTS: &str = "all/a quiet/q no-trunc output/o= name= pod/p= state/s= id= image= latest/l label=";

/// A container of this node.
struct Held {
    id: String,
    pod: Value,
    status: Value,
    running: bool,
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn ago(c: &Call, time: &Value) -> String {
    let at = time.as_str().and_then(crate::kube::store::meta::parse_time);
    let secs = at.map_or(0, |t| c.m.lab.clock().now_ms().saturating_sub(t) / 1000);
    let (n, unit) = match secs {
        0..60 => (secs, "second"),
        60..3600 => (secs / 60, "minute"),
        3600..86_400 => (secs / 3600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

/// Nanoseconds since 1970, as CRI writes times.
fn nanos(time: &Value) -> String {
    let at = time.as_str().and_then(crate::kube::store::meta::parse_time).unwrap_or(0);
    (at * 1_000_000).to_string()
}

/// A number as lists show it.
fn short(w: &Words, id: &str) -> String {
    if w.on("no-trunc") { id.to_owned() } else { id.chars().take(13).collect() }
}

/// The number of a pod's sandbox.
fn sandbox(pod: &Value) -> String {
    sha256(&text(&pod["metadata"]["uid"]))
}

/// The number of an image.
fn image_id(image: &str) -> String {
    sha256(image)
}

fn labels(pod: &Value) -> Value {
    json!({"io.kubernetes.pod.name": pod["metadata"]["name"], "io.kubernetes.pod.namespace": pod["metadata"]["namespace"],
        "io.kubernetes.pod.uid": pod["metadata"]["uid"]})
}

impl Held {
    fn name(&self) -> String {
        text(&self.status["name"])
    }

    /// When it was started.
    fn born(&self) -> &Value {
        &self.status["state"][if self.running { "running" } else { "terminated" }]["startedAt"]
    }

    fn state(&self) -> &'static str {
        if self.running { "CONTAINER_RUNNING" } else { "CONTAINER_EXITED" }
    }

    fn shown(&self) -> Value {
        let image = text(&self.status["image"]);
        let mut labels = labels(&self.pod);
        labels["io.kubernetes.container.name"] = self.status["name"].clone();
        json!({"id": self.id, "podSandboxId": sandbox(&self.pod),
            "metadata": {"name": self.name(), "attempt": self.status["restartCount"]},
            "image": {"image": image_id(&image), "annotations": {}, "userSpecifiedImage": image, "runtimeHandler": ""},
            "imageRef": image_id(&image), "state": self.state(), "createdAt": nanos(self.born()), "labels": labels,
            "annotations": {}, "imageId": image_id(&image)})
    }

    /// What `inspect` says of it.
    fn status(&self) -> Value {
        let (now, end) = (&self.status["state"]["running"], &self.status["state"]["terminated"]);
        let mut status = self.shown();
        let more = json!({"createdAt": self.born(), "startedAt": if self.running { &now["startedAt"] } else { &end["startedAt"] },
            "finishedAt": if self.running { "0001-01-01T00:00:00Z".into() } else { end["finishedAt"].clone() },
            "exitCode": end["exitCode"].as_i64().unwrap_or(0), "reason": text(&end["reason"]), "message": text(&end["message"]),
            "image": {"image": self.status["image"], "annotations": {}, "runtimeHandler": "", "userSpecifiedImage": ""},
            "imageRef": self.status["imageID"]});
        for (k, v) in more.as_object().into_iter().flatten() {
            status[k] = v.clone();
        }
        json!({"status": status})
    }
}

/// The containers of pods, those that ended too; what the words leave out is not among them.
fn held(pods: &[Value], w: &Words, ended: bool) -> Vec<Held> {
    let mut out = Vec::new();
    for pod in pods {
        for status in every(pod) {
            let id = text(&status["containerID"]).trim_start_matches("containerd://").to_owned();
            let running = status["state"]["running"].is_object();
            let asked = w.value("state").map_or(running || ended, |s| s.eq_ignore_ascii_case("running") == running);
            let named = w.value("name").is_none_or(|n| text(&status["name"]).contains(n));
            let inside = w.value("pod").is_none_or(|p| sandbox(pod).starts_with(p));
            if !id.is_empty() && asked && named && inside {
                out.push(Held { id, pod: pod.clone(), status: status.clone(), running });
            }
        }
    }
    out
}

/// Runs what only looks, and `exec`; `None` for its other commands.
pub(super) async fn crictl(c: &mut Call, words: &[String]) -> Option<i32> {
    let (verb, rest) = words.split_first()?;
    let verb = match verb.as_str() {
        "img" | "image" => "images",
        v => v,
    };
    let prunes = verb == "rmi" && rest == ["--prune"];
    if !prunes && !matches!(verb, "ps" | "pods" | "images" | "inspect" | "logs" | "exec" | "stats" | "info" | "version")
    {
        return None;
    }
    if c.who.uid != Who::root().uid {
        let text = "FATA[0000] validate service connection: validate CRI v1 runtime API for endpoint \"unix:///run/k3s/containerd/containerd.sock\": rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /run/k3s/containerd/containerd.sock: connect: permission denied\"";
        return Some(c.fail(1, text));
    }
    if prunes {
        // `images` lists those of pods, and these stay
        return Some(0);
    }
    let host = c.guest(|g| g.hostname.clone()).unwrap_or_default();
    let at = cluster(c, false);
    let query = format!("fieldSelector=spec.nodeName%3D{host}");
    let (_, list) = match &at {
        Some(at) => ask(c, at, "/api/v1/pods", &query, "application/json").await,
        None => (0, Value::Null),
    };
    let all = list["items"].as_array().cloned().unwrap_or_default();
    if matches!(verb, "logs" | "exec") {
        return inside(c, &at?, verb, rest, &all).await;
    }
    let w = Words::read(rest, LISTS)?;
    let ns = w.value("namespace").map(str::to_owned);
    let all: Vec<Value> =
        all.into_iter().filter(|p| ns.as_ref().is_none_or(|n| p["metadata"]["namespace"] == n.as_str())).collect();
    match verb {
        "version" | "info" => return about(c, at.as_ref(), &host, verb).await,
        "inspect" => return inspect(c, &w, &all),
        _ => {}
    }
    let form = w.value("output").unwrap_or("table");
    let (key, ids, shown, rows) = match verb {
        "ps" => containers(c, &w, &all),
        "pods" => pods(c, &w, &all),
        "stats" if form == "table" && !w.on("quiet") => (String::new(), Vec::new(), Vec::new(), stats(&w, &all)),
        "images" => images(&w, &all),
        _ => return None,
    };
    match form {
        _ if w.on("quiet") => ids.iter().for_each(|id| c.line(id)),
        "json" => c.line(&serde_json::to_string_pretty(&json!({ key: shown })).unwrap_or_default()),
        "table" => columns(&rows).iter().for_each(|l| c.line(l)),
        _ => return None,
    }
    Some(0)
}

/// A list in its forms: its field in JSON, numbers, objects, rows.
type List = (String, Vec<String>, Vec<Value>, Vec<Vec<String>>);

fn heads(names: &[&str]) -> Vec<Vec<String>> {
    vec![names.iter().map(|h| (*h).to_owned()).collect()]
}

fn containers(c: &Call, w: &Words, all: &[Value]) -> List {
    let mut rows = heads(&["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"]);
    let found = held(all, w, w.on("all"));
    rows.extend(found.iter().map(|h| {
        vec![
            short(w, &h.id),
            short(w, &image_id(&text(&h.status["image"]))),
            ago(c, h.born()),
            if h.running { "Running" } else { "Exited" }.to_owned(),
            h.name(),
            h.status["restartCount"].to_string(),
            short(w, &sandbox(&h.pod)),
            text(&h.pod["metadata"]["name"]),
            text(&h.pod["metadata"]["namespace"]),
        ]
    }));
    let ids = found.iter().map(|h| h.id.clone()).collect();
    ("containers".to_owned(), ids, found.iter().map(Held::shown).collect(), rows)
}

fn pods(c: &Call, w: &Words, all: &[Value]) -> List {
    let mut rows = heads(&["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]);
    let (mut ids, mut shown) = (Vec::new(), Vec::new());
    for p in all {
        let ready = p["status"]["phase"] == "Running";
        let named = w.value("name").is_none_or(|n| text(&p["metadata"]["name"]).contains(n));
        let asked = w.value("state").is_none_or(|s| s.eq_ignore_ascii_case("ready") == ready);
        if !named || !asked {
            continue;
        }
        let (name, ns, id) = (text(&p["metadata"]["name"]), text(&p["metadata"]["namespace"]), sandbox(p));
        let state = if ready { "Ready" } else { "NotReady" };
        shown.push(
            json!({"id": id, "metadata": {"name": name, "uid": p["metadata"]["uid"], "namespace": ns, "attempt": 0},
            "state": format!("SANDBOX_{}", state.to_uppercase()), "createdAt": nanos(&p["status"]["startTime"]),
            "labels": labels(p), "annotations": {}, "runtimeHandler": ""}),
        );
        let born = ago(c, &p["status"]["startTime"]);
        rows.push(vec![short(w, &id), born, state.into(), name, ns, "0".into(), "(default)".into()]);
        ids.push(id);
    }
    ("items".to_owned(), ids, shown, rows)
}

/// Images of the pods that are on this node. Their sizes are not simulated.
fn images(w: &Words, all: &[Value]) -> List {
    let pulled = |s: &&Value| s["imageID"].as_str().is_some_and(|i| !i.is_empty());
    let mut found: Vec<String> = all.iter().flat_map(every).filter(pulled).map(|s| text(&s["image"])).collect();
    found.sort();
    found.dedup();
    let mut rows = heads(&["IMAGE", "TAG", "IMAGE ID", "SIZE"]);
    rows.extend(found.iter().map(|image| {
        let (name, tag) = image.rsplit_once(':').filter(|(_, t)| !t.contains('/')).unwrap_or((image, "latest"));
        vec![name.to_owned(), tag.to_owned(), short(w, &image_id(image)), "-".to_owned()]
    }));
    let shown =
        found.iter().map(|i| json!({"id": format!("sha256:{}", image_id(i)), "repoTags": [i], "repoDigests": []}));
    let ids = found.iter().map(|i| format!("sha256:{}", image_id(i))).collect();
    ("images".to_owned(), ids, shown.collect(), rows)
}

/// What containers use. Grade: estimate (as `kubectl top` has it; nothing is on their own disks).
fn stats(w: &Words, all: &[Value]) -> Vec<Vec<String>> {
    let mut rows = heads(&["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES"]);
    rows.extend(held(all, w, false).iter().map(|h| {
        let spec = h.pod["spec"]["containers"].as_array().into_iter().flatten().find(|x| x["name"] == h.status["name"]);
        let (cpu, memory) = usage(&h.pod, spec.unwrap_or(&Value::Null));
        let bytes = memory * 1024;
        let mem = format!("{}.{:02}MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000);
        let percent = format!("{}.{:02}", cpu / 10, cpu % 10 * 10);
        vec![short(w, &h.id), h.name(), percent, mem, "28.67kB".to_owned(), "11".to_owned()]
    }));
    rows
}

/// The container that a number begins.
fn chosen(c: &mut Call, all: &[Value], id: &str) -> Result<Held, i32> {
    let mut found = held(all, &Words::default(), true);
    let at = found.iter().position(|h| !id.is_empty() && h.id.starts_with(id));
    at.map(|i| found.swap_remove(i)).ok_or_else(|| {
        let why = format!(
            "rpc error: code = NotFound desc = an error occurred when try to find container \"{id}\": not found"
        );
        c.fail(1, &format!("FATA[0000] {why}"))
    })
}

fn inspect(c: &mut Call, w: &Words, all: &[Value]) -> Option<i32> {
    if w.bare.is_empty() {
        return Some(c.fail(1, "FATA[0000] ID cannot be empty"));
    }
    for id in &w.bare {
        match chosen(c, all, id) {
            Ok(h) => c.line(&serde_json::to_string_pretty(&h.status()).unwrap_or_default()),
            Err(code) => return Some(code),
        }
    }
    Some(0)
}

/// `logs` and `exec`: the kubelet's own ways to the container.
async fn inside(c: &mut Call, at: &At, verb: &str, words: &[String], all: &[Value]) -> Option<i32> {
    // Options stand before the container's number, what stands behind it is the command.
    let takes = |w: &String| matches!(w.as_str(), "--tail" | "--since" | "--timeout");
    let mut i = 0;
    while words.get(i).is_some_and(|w| w.starts_with('-')) {
        i += 1 + usize::from(takes(&words[i]));
    }
    let (options, rest) = words.split_at(i.min(words.len()));
    let (id, rest) = rest.split_first()?;
    let h = match chosen(c, all, id) {
        Ok(h) => h,
        Err(code) => return Some(code),
    };
    let mut asked: Vec<String> = vec![text(&h.pod["metadata"]["name"]), "-c".to_owned(), h.name()];
    asked.extend(["-n".to_owned(), text(&h.pod["metadata"]["namespace"])]);
    if verb == "exec" {
        asked.extend(options.iter().map(|o| if o == "--interactive" { "-i".to_owned() } else { o.clone() }));
        asked.extend(std::iter::once("--".to_owned()).chain(rest.iter().cloned()));
        return exec(c, at, &asked).await;
    }
    let long = |o: &String| if o == "-t" { "--timestamps".to_owned() } else { o.clone() };
    asked.extend(options.iter().chain(rest).map(long));
    logs(c, at, &asked).await
}

/// `version` and `info`.
async fn about(c: &mut Call, at: Option<&At>, host: &str, verb: &str) -> Option<i32> {
    let (_, node) = ask(c, at?, &format!("/api/v1/nodes/{host}"), "", "application/json").await;
    let runtime = text(&node["status"]["nodeInfo"]["containerRuntimeVersion"]);
    let version = runtime.trim_start_matches("containerd://");
    if verb == "version" {
        for l in [
            "Version:  0.1.0",
            "RuntimeName:  containerd",
            &format!("RuntimeVersion:  v{version}"),
            "RuntimeApiVersion:  v1",
        ] {
            c.line(l);
        }
        return Some(0);
    }
    let good = |kind: &str| json!({"type": kind, "status": true, "reason": "", "message": ""});
    let info = json!({"status": {"conditions": [good("RuntimeReady"), good("NetworkReady")]},
        "config": {"containerdEndpoint": "/run/k3s/containerd/containerd.sock", "containerdRootDir": "/var/lib/rancher/k3s/agent/containerd",
            "stateDir": "/run/k3s/containerd/io.containerd.grpc.v1.cri"}});
    c.line(&serde_json::to_string_pretty(&info).unwrap_or_default());
    Some(0)
}
