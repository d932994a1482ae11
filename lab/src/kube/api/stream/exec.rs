//! `pods/exec` and `pods/attach` over a WebSocket: one channel byte, then data.
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, Target, container, protocol, terminal, upgrade};
use crate::kube::api::{Body, Call};
use crate::kube::container::{Inside, enter, shell, spec};
use crate::kube::controllers::status::every;
use crate::kube::controllers::{images, kubelet};
use crate::kube::cx::{with_cluster, with_pods};
use crate::kube::schema::Kind;
use crate::kube::store::Failure;
use crate::kube::text::{arr, s, sha256};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

const PROTOCOLS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// What is run and how.
struct Wanted {
    argv: Vec<String>,
    stdin: bool,
    tty: bool,
    attach: bool,
}

/// Serves `exec`, or `attach` when `attach` is set.
///
/// # Errors
/// 400 when the container does not run or no WebSocket is asked for, 404 without the pod.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target, attach: bool) -> Result<http::Response<Body>, Failure> {
    let (pod, name) = container(call, kind, t)?;
    let q = &call.req.query;
    let pod_name = s(&pod, "/metadata/name");
    if s(&pod, "/spec/nodeName").is_empty() {
        return Err(Failure::bad_request(format!("pod {pod_name} does not have a host assigned")));
    }
    let argv: Vec<String> = q.all("command").map(str::to_owned).collect();
    if argv.is_empty() && !attach {
        return Err(Failure::bad_request("you must specify at least 1 command for the container"));
    }
    let running = every(&pod).any(|c| s(c, "/name") == name && c["state"]["running"].is_object());
    if !running && !attach {
        let why = format!("unable to upgrade connection: container not found (\"{name}\")");
        return Err(Failure::new(500, "InternalError", format!("Internal error occurred: {why}")));
    }
    let inside = call.lab.with(|w| with_cluster(call.lab, w, call.cluster, |cx| enter(cx, &pod, &name))).flatten();
    let mut inside =
        inside.ok_or_else(|| Failure::bad_request(format!("container {name} is not valid for pod {pod_name}")))?;
    if q.flag("tty") {
        inside.screen.set(0, 0);
        inside.env.insert("TERM".to_owned(), "xterm".to_owned());
    }
    let wanted = Wanted { argv, stdin: q.flag("stdin"), tty: q.flag("tty"), attach };
    let client = call.req.client;
    upgrade(call.req, protocol(call.req, PROTOCOLS), move |socket| async move {
        let mark = inside.lab.enter(client);
        run(socket, &inside, wanted).await;
        drop(mark);
    })
}

/// The Status that tells how a command ended.
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

/// What the kubelet says of a program that the container does not have.
pub(crate) fn missing(program: &str) -> Value {
    let why = format!(
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH: unknown"
    );
    let message = format!(
        "Internal error occurred: error executing command in container: failed to exec in container: failed to start exec \"{}\": {why}",
        sha256(program)
    );
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": message,
        "details": {"causes": [{"message": why}]}})
}

/// The client's terminal has another size.
fn resize(inside: &Inside, text: &[u8]) {
    let size: Value = serde_json::from_slice(text).unwrap_or_default();
    let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
    if let (Some(rows), Some(columns)) = (side("Height"), side("Width")) {
        inside.screen.set(rows, columns);
    }
}

async fn run(socket: Socket, inside: &Inside, w: Wanted) {
    let (mut to, mut from) = socket.split();
    let (tx, rx) = mpsc::channel::<Vec<u8>>(64);
    let (say, mut said) = mpsc::channel::<(u8, Vec<u8>)>(64);
    let stdin = w.stdin;
    let listen = async move {
        let mut tx = Some(tx).filter(|_| stdin);
        while let Some(Ok(m)) = from.next().await {
            // The Python client sends what is text as text.
            let data = match m {
                Message::Binary(b) => b.to_vec(),
                Message::Text(t) => t.as_bytes().to_vec(),
                Message::Close(_) => return,
                _ => continue,
            };
            match data.split_first() {
                Some((&STDIN, rest)) if !rest.is_empty() => {
                    if let Some(t) = &tx {
                        let _ = t.send(rest.to_vec()).await;
                    }
                }
                Some((&CLOSE, [STDIN])) => tx = None,
                Some((&RESIZE, rest)) => resize(inside, rest),
                _ => {}
            }
        }
    };
    let speak = async {
        while let Some((channel, data)) = said.recv().await {
            let mut frame = Vec::with_capacity(data.len() + 1);
            frame.push(channel);
            frame.extend(data);
            if to.send(Message::Binary(frame.into())).await.is_err() {
                return;
            }
        }
        let _ = to.send(super::goodbye()).await;
        let _ = to.flush().await;
    };
    let work = async move {
        // Who is attached sees the end of the container, a command beside it dies with it.
        let end = tokio::select! { biased;
            end = work(inside, &w, rx, &say) => end,
            () = inside.stop.cancelled() => status(KILLED),
        };
        let _ = say.send((ERROR, end.to_string().into_bytes())).await;
        drop(say);
    };
    // The command ends with its client.
    tokio::select! {
        ((), ()) = async { tokio::join!(work, speak) } => {}
        () = listen => {}
    }
}

/// Exit code of what was killed.
const KILLED: i32 = 137;

async fn work(inside: &Inside, w: &Wanted, rx: mpsc::Receiver<Vec<u8>>, say: &mpsc::Sender<(u8, Vec<u8>)>) -> Value {
    if w.attach {
        return attach(inside, w, rx, say).await;
    }
    if shell::is_interactive(&w.argv) && w.stdin {
        return status(terminal::serve(inside, &w.argv, rx, say, w.tty).await);
    }
    let program = w.argv.first().map(String::as_str).unwrap_or_default();
    if !shell::is_in(program, inside.gpus.is_some()) {
        return missing(program);
    }
    let input = if w.stdin { shell::Input::Live(rx) } else { shell::Input::Bytes(Vec::new()) };
    status(command(inside, &w.argv, input, say, w.tty).await)
}

/// Runs a command and passes on what it writes.
async fn command(
    inside: &Inside,
    argv: &[String],
    input: shell::Input,
    say: &mpsc::Sender<(u8, Vec<u8>)>,
    tty: bool,
) -> i32 {
    let (out, chunks) = mpsc::channel(64);
    let work = async move { shell::run(inside, argv, input, &out).await };
    tokio::join!(work, terminal::pass(chunks, say, tty)).0
}

/// Joins the main process: its log from now on, and a shell where the container's command is one.
async fn attach(inside: &Inside, w: &Wanted, rx: mpsc::Receiver<Vec<u8>>, say: &mpsc::Sender<(u8, Vec<u8>)>) -> Value {
    let c = spec(&inside.pod, &inside.container).cloned().unwrap_or_default();
    let argv: Vec<String> =
        arr(&c, "/command").iter().chain(arr(&c, "/args")).filter_map(Value::as_str).map(str::to_owned).collect();
    let waits = c["stdin"] == true && (shell::is_interactive(&argv) || argv.is_empty() && images::plain(&inside.image));
    if waits && w.stdin {
        let code = terminal::serve(inside, &argv, rx, say, w.tty).await;
        let uid = s(&inside.pod, "/metadata/uid").to_owned();
        inside.lab.with(|w| {
            with_pods(&inside.lab, w, &inside.cluster, |cx| {
                kubelet::script_ended(cx, &uid, &inside.container, i64::from(code))
            });
        });
        // How the process ended is told by its state, not by who watched it.
        return status(0);
    }
    let once = c["stdinOnce"] == true;
    if w.stdin {
        tokio::select! {
            () = feed(inside, rx, once) => {}
            () = watch(inside, say) => {}
        }
    } else {
        watch(inside, say).await;
    }
    status(0)
}

/// Hands what a client writes to the main process, whose input ends with it if it is meant for one client.
async fn feed(inside: &Inside, mut rx: mpsc::Receiver<Vec<u8>>, once: bool) {
    let (uid, held) = (s(&inside.pod, "/metadata/uid"), &inside.lab.kube().containers);
    while let Some(bytes) = rx.recv().await {
        if let Some(tx) = held.stdin(uid, &inside.container) {
            let _ = tx.send(bytes).await;
        }
    }
    if once {
        held.close_stdin(uid, &inside.container);
    }
    std::future::pending().await
}

/// What the main process writes, until it ends.
async fn watch(inside: &Inside, say: &mpsc::Sender<(u8, Vec<u8>)>) {
    let mut bell = inside.lab.kube().log_bell();
    let uid = s(&inside.pod, "/metadata/uid").to_owned();
    let mut seen = 0;
    let id = |p: &Value| every(p).find(|c| s(c, "/name") == inside.container).map(|c| c["containerID"].clone());
    let own = id(&inside.pod);
    loop {
        let (text, over) = inside.lab.with(|w| {
            let Some(c) = w.clusters.get(&inside.cluster) else { return (String::new(), true) };
            let Some(rt) = c.pods.get(&uid) else { return (String::new(), true) };
            let lines = rt.log.get(&inside.container).map(|l| l.lines.as_slice()).unwrap_or_default();
            let fresh: String = lines.iter().skip(seen).map(|l| format!("{}\n", l.1)).collect();
            seen = lines.len();
            let Some(p) = c.store.get("pods", &rt.ns, &rt.name) else { return (fresh, true) };
            let mut ended = every(p).filter(|c| s(c, "/name") == inside.container);
            // The next run of the container is another one.
            let gone = ended.any(|c| c["state"]["terminated"].is_object()) || id(p) != own;
            (fresh, gone || matches!(s(p, "/status/phase"), "Succeeded" | "Failed"))
        });
        if !text.is_empty() && say.send((STDOUT, text.into_bytes())).await.is_err() {
            return;
        }
        if over {
            return;
        }
        tokio::select! {
            r = bell.changed() => if r.is_err() { return },
            () = inside.stop.cancelled() => return,
        }
    }
}

/// The channel of standard output or error.
pub(super) const fn channel(error: bool) -> u8 {
    if error { STDERR } else { STDOUT }
}
