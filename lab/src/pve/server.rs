//! The HTTPS server: TLS, HTTP/1, body decoding, the 401 delay, waiting for config locks.
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::params::{Params, Upload, unescape};
use super::reply::{ApiError, Reply, render};
use super::router::{self, Call};
use super::trouble::{self, Cut};
use super::{agent, auth, record};
use crate::{Client, Lab, tls};

/// Largest form or JSON body.
const BODY_LIMIT: usize = 512 << 10;
/// Largest upload.
const UPLOAD_LIMIT: usize = 256 << 20;
/// How long every 401 takes.
const REFUSAL: Duration = Duration::from_secs(3);
/// How long a request waits for the lock of a VM's config file.
const LOCK_WAIT_MS: u64 = 10_000;

/// Serves the API on a port of 127.0.0.1 and announces it.
///
/// # Errors
/// When the port cannot be bound or the certificate cannot be read.
pub async fn serve(lab: &Lab) -> std::io::Result<()> {
    record::from_environment(lab)?;
    let (leaf, api, nodes) =
        lab.with(|w| (w.pve.leaf.clone(), w.pve.api_addr.clone(), w.pve.nodes.keys().cloned().collect::<Vec<_>>()));
    let acceptor = TlsAcceptor::from(tls::server_config(&leaf, None, &["http/1.1"])?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    lab.route_up(&api, at);
    for n in nodes {
        lab.route_up(&format!("{n}:8006"), at);
    }
    let lab = lab.clone();
    let stop = lab.stop_token();
    tokio::spawn(async move {
        loop {
            let socket = tokio::select! {
                s = listener.accept() => s,
                () = stop.cancelled() => return,
            };
            if let Ok((socket, _)) = socket {
                tokio::spawn(connection(lab.clone(), acceptor.clone(), socket));
            }
        }
    });
    Ok(())
}

async fn connection(lab: Lab, acceptor: TlsAcceptor, socket: TcpStream) {
    socket.set_nodelay(true).ok();
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let stop = lab.stop_token();
    let service = hyper::service::service_fn(move |r| {
        let lab = lab.clone();
        async move { answer(&lab, r).await }
    });
    let io = hyper_util::rt::TokioIo::new(stream);
    let conn = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    tokio::select! {
        r = conn => if let Err(e) = r { tracing::debug!("connection to the Proxmox API ended: {e}"); },
        () = stop.cancelled() => {}
    }
}

async fn answer(lab: &Lab, r: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let ours = r.headers().get("x-gpuhost-clock").is_some();
    let _mark = lab.enter(if ours { Client::Ours } else { Client::Foreign });
    let path = r.uri().path().to_owned();
    let (extjs, rest) = match (path.strip_prefix("/api2/json"), path.strip_prefix("/api2/extjs")) {
        (Some(p), _) => (false, p),
        (_, Some(p)) => (true, p),
        _ => {
            let text = "file error - /usr/share/pve-manager/index.html.tpl: not found";
            return Ok(render(Err(ApiError { bare: true, newline: true, ..ApiError::fail(text) }), false, false));
        }
    };
    let parts = rest.split('/').filter(|p| !p.is_empty()).map(|p| unescape(p, false)).collect();
    let reply = match read(lab, r, parts).await {
        Ok(call) => carry_out(lab, &call, ours).await?,
        Err(e) => Err(e),
    };
    if matches!(&reply, Err(e) if e.code == 401) {
        lab.clock().sleep(REFUSAL).await;
    }
    let old = lab.with(|w| w.pve.is_8());
    Ok(render(reply, extjs, old))
}

/// Reads a request to its end.
async fn read(lab: &Lab, r: Request<Incoming>, path: Vec<String>) -> Result<Call, ApiError> {
    let (head, body) = r.into_parts();
    let method = head.method.as_str().to_owned();
    let bare = |code, text: String| Err(ApiError { bare: true, ..ApiError::status(code, text) });
    if !["GET", "POST", "PUT", "DELETE"].contains(&method.as_str()) {
        return Err(ApiError {
            silent: true,
            bare: true,
            ..ApiError::status(501, format!("method '{method}' not available"))
        });
    }
    if head.headers.contains_key("transfer-encoding") {
        return bare(501, "chunked transfer encoding not supported".into());
    }
    let upload = path.last().is_some_and(|p| p == "upload") && method == "POST";
    let limit = if upload { UPLOAD_LIMIT } else { BODY_LIMIT };
    let bytes = match http_body_util::Limited::new(body, limit).collect().await {
        Ok(b) => b.to_bytes(),
        Err(_) => return bare(501, "for data too large".into()),
    };
    if method == "DELETE" && !bytes.is_empty() {
        return bare(501, "Unexpected content for method 'DELETE'".into());
    }
    let login = path.iter().map(String::as_str).eq(["access", "ticket"]) && method == "POST";
    let now_s = lab.clock().now_ms() / 1000;
    let who = if login {
        None
    } else {
        let write = method != "GET" && !upload;
        Some(lab.with(|w| auth::identify(&w.pve, &head.headers, write, now_s))?)
    };
    let ctype = head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (mut params, file) = decode(ctype, &bytes, head.uri.query())?;
    router::drop_repeated(&path, &mut params)?;
    Ok(Call { who, method, path, params, file })
}

/// Carries a request out, with what goes wrong on the way.
async fn carry_out(lab: &Lab, call: &Call, ours: bool) -> Result<Reply, Cut> {
    let since = lab.clock().now_ms();
    lab.with(|w| areas(call).into_iter().for_each(|a| w.meets(a)));
    let (op, target) = trouble::address(lab, call);
    let fault = lab.faults().strike(&op, &target);
    let reply = match &fault {
        None => run(lab, call).await,
        Some(f) => match trouble::before(lab, f).await? {
            Some(reply) => reply,
            None => {
                let reply = run(lab, call).await;
                if !trouble::meets(f, &reply) {
                    lab.faults().spare(&op, &target);
                }
                trouble::after(lab, f, reply)?
            }
        },
    };
    record::note(lab, call, ours, since, &reply);
    Ok(reply)
}

/// The behaviours that a request meets, for their grades.
fn areas(call: &Call) -> [&'static str; 2] {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let write = call.method != "GET";
    let area = match &path[..] {
        ["access", "groups" | "domains", ..] => "pve/groups",
        ["access", ..] => "pve/access",
        ["cluster", "mapping", ..] => "pve/mapping",
        ["cluster", "ha", ..] => "pve/ha",
        ["cluster", "backup", ..] => "pve/jobs",
        ["cluster", "sdn", ..] => "pve/sdn",
        ["cluster", "firewall", ..] | ["nodes", _, "firewall", ..] | ["nodes", _, "qemu", _, "firewall", ..] => {
            "pve/firewall"
        }
        ["cluster", "metrics", ..] => "pve/metrics",
        ["cluster", "notifications" | "jobs" | "bulk-action", ..] => "pve/cluster_more",
        ["cluster", ..] => "pve/cluster",
        ["nodes", _, "apt", ..] => "pve/apt",
        ["nodes", _, "capabilities", ..] => "pve/capabilities",
        ["nodes", _, "disks" | "scan", ..] => "pve/disks",
        ["nodes", _, "journal" | "syslog" | "netstat" | "report"] => "pve/logs",
        ["pools", ..] => "pve/pools",
        ["nodes", _, "storage", _, "prunebackups"] => "pve/prune",
        ["nodes", _, "storage", ..] => "pve/content",
        ["nodes", _, "tasks", ..] => "pve/task",
        ["nodes", _, "network", ..] => "pve/network",
        ["nodes", _, "vzdump", ..] => "pve/backup",
        ["nodes", _, "qemu", _, "clone"] => "pve/qemu/clone",
        ["nodes", _, "qemu", _, "migrate"] => "pve/qemu/migrate",
        ["nodes", _, "qemu", _, "move_disk"] => "pve/qemu/move_disk",
        ["nodes", _, "qemu", _, "snapshot", ..] => "pve/qemu/snapshot",
        ["nodes", _, "qemu", _, "agent", ..] => "pve/agent",
        ["nodes", _, "qemu", _, "status", "start"] => "pve/qemu/pci",
        ["nodes", _, "qemu", _, "status", _] if write => "pve/qemu/power",
        ["nodes", _, "qemu", ..] if write => "pve/space",
        ["nodes", _, "qemu", ..] => "pve/qemu/",
        ["nodes", ..] => "pve/nodes",
        _ => "pve/",
    };
    [area, if write { "pve/task" } else { "pve/acl" }]
}

/// Runs a request, waiting for a config lock as long as the server does.
async fn run(lab: &Lab, call: &Call) -> Reply {
    if let Some(reply) = agent::maybe_async(lab, call).await {
        return reply;
    }
    let mut waited = 0;
    loop {
        let reply = lab.with(|w| router::route(lab, w, call));
        match &reply {
            Err(e) if e.flock.is_some() && waited < LOCK_WAIT_MS => {
                waited += 500;
                lab.clock().sleep(Duration::from_millis(500)).await;
            }
            _ => return reply,
        }
    }
}

fn decode(ctype: &str, bytes: &Bytes, query: Option<&str>) -> Result<(Params, Option<Upload>), ApiError> {
    let mut params = Params::default();
    let mut file = None;
    let kind = ctype.split(';').next().unwrap_or_default().trim();
    match kind {
        _ if bytes.is_empty() => {}
        "application/json" => match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(serde_json::Value::Object(o)) => params.0.extend(o.into_iter().filter(|(_, v)| !v.is_null())),
            Ok(_) => return Err(malformed("not a HASH reference".into())),
            Err(e) => return Err(malformed(json_error(&String::from_utf8_lossy(bytes), e.column()))),
        },
        "application/x-www-form-urlencoded" | "" => params.add_form(&String::from_utf8_lossy(bytes)),
        "multipart/form-data" => {
            let bad = || ApiError::broken(400, "Bad Request");
            file = Some(multipart(ctype, bytes, &mut params).ok_or_else(bad)?);
        }
        other => {
            let text = format!("upload 'Content-Type '{other}' not implemented");
            return Err(ApiError { bare: true, ..ApiError::status(506, text) });
        }
    }
    params.add_form(query.unwrap_or_default());
    Ok((params, file))
}

fn malformed(text: String) -> ApiError {
    let text = format!("{text} at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.");
    ApiError { bare: true, newline: true, ..ApiError::fail(text) }
}

/// What the server's parser says about a text that is not JSON, of which ours stopped at `column`.
fn json_error(text: &str, column: usize) -> String {
    let at = column.saturating_sub(1).min(text.len());
    let rest = text.get(at..).unwrap_or_default().trim_end_matches('}');
    let place = if rest.is_empty() { "(end of string)".to_owned() } else { rest.to_owned() };
    match text.as_bytes().first() {
        Some(b'{') if at == 1 => format!("'\"' expected, at character offset {at} (before \"{place}\")"),
        Some(b'{') => {
            format!(", or }} expected while parsing object/hash, at character offset {at} (before \"{place}\")")
        }
        Some(b'[') => format!(", or ] expected while parsing array, at character offset {at} (before \"{place}\")"),
        _ => {
            let what = "malformed JSON string, neither tag, array, object, number, string or atom";
            format!("{what}, at character offset {at} (before \"{place}\")")
        }
    }
}

fn find(hay: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    hay.get(from..)?.windows(needle.len()).position(|w| w == needle).map(|i| i + from)
}

/// The fields of an upload, in the only order that the server reads them in.
const FIELDS: [&str; 4] = ["content", "checksum-algorithm", "checksum", "tmpfilename"];

/// Reads `multipart/form-data`: fields become parameters, the part with a file name is the upload.
fn multipart(ctype: &str, bytes: &[u8], params: &mut Params) -> Option<Upload> {
    let boundary = ctype.split("boundary=").nth(1)?.split(';').next()?.trim().trim_matches('"');
    let mark = format!("--{boundary}");
    let next = format!("\r\n{mark}");
    let mut at = find(bytes, mark.as_bytes(), 0)? + mark.len();
    let mut file = None;
    let mut seen = 0;
    while bytes.get(at..at + 2) == Some(b"\r\n") {
        let head_end = find(bytes, b"\r\n\r\n", at)?;
        let end = find(bytes, next.as_bytes(), head_end + 2)?;
        let head = String::from_utf8_lossy(&bytes[at..head_end]).into_owned();
        let body = bytes.get(head_end + 4..end).unwrap_or_default();
        let attr = |k: &str| {
            let (_, rest) = head.split_once(&format!("{k}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        match (attr(" name"), attr("filename")) {
            (_, Some(filename)) => file = Some(Upload { filename, bytes: body.to_vec() }),
            (Some(name), None) => {
                let place = FIELDS.iter().position(|f| *f == name).unwrap_or(seen);
                if place < seen || file.is_some() {
                    return None;
                }
                seen = place;
                params.0.insert(name, String::from_utf8_lossy(body).into_owned().into());
            }
            _ => {}
        }
        at = end + next.len();
    }
    file
}
