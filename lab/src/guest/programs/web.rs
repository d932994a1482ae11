//! `curl` and `wget`: only what the lab has — K3s releases, the world's downloads, API servers of clusters in it.
use futures::future::BoxFuture;

use super::{Call, Program, later};
use crate::fault::Fault;
use crate::grades::missing;
use crate::guest::k3s::{VERSIONS, binary};
use crate::guest::query;
use crate::kube::hooks::{ServiceAnswer, ServiceRequest};
use crate::kube::text::{sha256, sha256_of};

pub(super) const PROGRAMS: &[Program] = &[later("/usr/bin/curl", curl), later("/usr/bin/wget", wget)];

/// What an API server says to nobody; to `curl` it writes over several lines.
const UNAUTHORIZED: &str = "{
  \"kind\": \"Status\",
  \"apiVersion\": \"v1\",
  \"metadata\": {},
  \"status\": \"Failure\",
  \"message\": \"Unauthorized\",
  \"reason\": \"Unauthorized\",
  \"code\": 401
}";

/// What a URL gives.
enum Answer {
    Body(u16, Vec<u8>),
    /// Through a cluster's ingress, with the validity of the certificate that it showed.
    Shown(u16, Vec<u8>, crate::kube::ingress::Shown),
    /// Could not connect: curl's exit status and text.
    Failed(i32, String),
}

/// What is sent besides the URL.
#[derive(Default)]
struct Sent {
    method: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// `--resolve`: `host:port:address`.
    resolve: Option<String>,
}

/// A line of curl's configuration: `name = "value"` with backslashes.
fn setting(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let inner = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some((name.trim().to_owned(), inner.replace("\\\"", "\"").replace("\\\\", "\\")))
}

/// Reads `-X`, `-H` (from standard input for `@-`) and `--data`.
async fn sent(c: &mut Call) -> Sent {
    let body = c.value(&["-d", "--data"]).unwrap_or_default().into_bytes();
    let method =
        c.value(&["-X", "--request"]).unwrap_or_else(|| if body.is_empty() { "GET" } else { "POST" }.to_owned());
    let mut lines: Vec<String> = Vec::new();
    let given: Vec<String> =
        c.args.windows(2).filter(|w| w[0] == "-H" || w[0] == "--header").map(|w| w[1].clone()).collect();
    for h in given {
        if h == "@-" {
            let text = String::from_utf8_lossy(&c.read_all().await).into_owned();
            lines.extend(text.lines().map(str::to_owned));
        } else {
            lines.push(h);
        }
    }
    let mut config = Vec::new();
    if c.value(&["-K", "--config"]).as_deref() == Some("-") {
        let text = String::from_utf8_lossy(&c.read_all().await).into_owned();
        config = text.lines().filter_map(setting).collect();
    }
    let given = |name: &str| config.iter().find(|s: &&(String, String)| s.0 == name).map(|s| s.1.clone());
    let body = given("data").map_or(body, String::into_bytes);
    let method = given("request").unwrap_or(method);
    let user = given("user").or_else(|| c.value(&["-u", "--user"]));
    if let Some(user) = user {
        lines.push(format!("authorization: Basic {}", crate::kube::text::b64(user.as_bytes())));
    }
    let headers = lines
        .iter()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.trim().to_lowercase(), v.trim().to_owned()))
        .collect();
    Sent { method, headers, body, resolve: c.value(&["--resolve"]) }
}

const CHANNELS: &str = "https://update.k3s.io/v1-release/channels/";

/// The newest release of a minor such as `v1.34`.
fn newest(minor: &str) -> Option<&'static str> {
    let of = |v: &&&str| v.strip_prefix(minor).is_some_and(|rest| rest.starts_with('.'));
    VERSIONS.iter().filter(of).max_by_key(|v| gpuhost_stdlib::wire::k3s::minor_patch(v)).copied()
}

/// Where a URL leads after its redirects.
fn effective(url: &str) -> String {
    match url.strip_prefix(CHANNELS).and_then(newest) {
        Some(v) => format!("https://github.com/k3s-io/k3s/releases/tag/{}", v.replace('+', "%2B")),
        None => url.to_owned(),
    }
}

/// What a download outside the lab meets when something goes wrong with it.
fn struck(c: &Call, url: &str) -> Option<Answer> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let m = c.m.clone();
    let inside = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok()
        || c.world(|w| query::name_to_ip(w, &m, host).is_some());
    let fault = if inside { None } else { c.m.lab.faults().strike(crate::fault::FETCH, host) }?;
    let port = if url.starts_with("http:") { 80 } else { 443 };
    Some(match fault {
        Fault::Http(code) => Answer::Body(code, b"refused by a fault".to_vec()),
        Fault::Timeout => {
            let why = format!(
                "curl: (28) Failed to connect to {host} port {port} after 130000 ms: Couldn't connect to server"
            );
            Answer::Failed(28, why)
        }
        Fault::DropMid => {
            Answer::Failed(18, "curl: (18) transfer closed with outstanding read data remaining".to_owned())
        }
        _ => Answer::Failed(35, "curl: (35) Recv failure: Connection reset by peer".to_owned()),
    })
}

fn fetch(c: &Call, url: &str, sent: &Sent) -> Answer {
    if let Some(answer) = struck(c, url) {
        return answer;
    }
    let clean = url.replace("%2B", "+").replace("%2b", "+");
    let base = "https://github.com/k3s-io/k3s/releases/download/";
    if let Some((version, file)) = clean.strip_prefix(base).and_then(|r| r.split_once('/')) {
        let known = VERSIONS.contains(&version);
        return match file {
            "k3s" if known => Answer::Body(200, binary(version)),
            "sha256sum-amd64.txt" if known => {
                let text = format!(
                    "{}  k3s-airgap-images-amd64.tar.zst\n{}  k3s\n",
                    sha256(version),
                    sha256_of(&binary(version))
                );
                Answer::Body(200, text.into_bytes())
            }
            _ => Answer::Body(404, b"Not Found".to_vec()),
        };
    }
    if let Some(minor) = clean.strip_prefix(CHANNELS) {
        // a redirect to the release's page, whose address is what is asked for
        return match newest(minor) {
            Some(_) => Answer::Body(200, b"<html></html>".to_vec()),
            None => Answer::Body(404, b"Not Found".to_vec()),
        };
    }
    let (scheme, rest) = clean.split_once("://").unwrap_or(("http", &clean));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority
        .split_once(':')
        .map_or((authority, if scheme == "https" { 443 } else { 80 }), |(h, p)| (h, p.parse().unwrap_or(0)));
    let m = c.m.clone();
    c.world(|w| {
        let told = sent.resolve.as_deref().and_then(|r| r.strip_prefix(&format!("{host}:{port}:")));
        let Some(ip) = told.map(str::to_owned).or_else(|| query::name_to_ip(w, &m, host)) else {
            w.not_rehearsed.insert(missing(&format!("download of {scheme}://{authority}"), "guest/programs/web"));
            return Answer::Failed(6, format!("curl: (6) Could not resolve host: {host}"));
        };
        let vmid = if ip.starts_with("127.") || host == "localhost" { Some(m.vmid) } else { query::by_ip(w, &ip) };
        let Some(vmid) = vmid else {
            let request = request(sent, scheme, port, path);
            return match crate::kube::hooks::from_node(&m.lab, w, m.vmid, &ip, request) {
                Some(a) => of_cluster(a, host, port),
                None => Answer::Failed(
                    28,
                    format!(
                        "curl: (28) Failed to connect to {host} port {port} after 130000 ms: Couldn't connect to server"
                    ),
                ),
            };
        };
        if matches!((scheme, port), ("http", 80) | ("https", 443)) {
            let request = ServiceRequest { port: String::new(), ..request(sent, "", port, path) };
            if let crate::kube::ingress::Entry::Answer(a, valid) =
                crate::kube::ingress::request(&m.lab, w, vmid, host, request)
            {
                return Answer::Shown(a.status, a.body, valid);
            }
        }
        if port == 6443 && path == "v1-k3s/token" {
            return rotate(&m.lab, w, vmid, sent);
        }
        if port == 6443 && crate::guest::units::state(w, vmid, "k3s.service").0 != "inactive" {
            let ready = matches!(crate::kube::k3s_unit(w, vmid), crate::kube::UnitState::Active);
            return match path.split('?').next().unwrap_or_default() {
                _ if !ready => Answer::Body(503, b"ServiceUnavailable".to_vec()),
                "ping" => Answer::Body(200, b"pong".to_vec()),
                "cacerts" => {
                    let ca = w.clusters.values().find(|c| c.members.contains_key(&vmid)).map(|c| c.ca.cert.clone());
                    Answer::Body(200, ca.unwrap_or_default().into_bytes())
                }
                _ => Answer::Body(401, UNAUTHORIZED.as_bytes().to_vec()),
            };
        }
        let at = query::ip(w, vmid).unwrap_or_default();
        let behind = NODE_PORTS.contains(&port).then(|| request(sent, scheme, port, path));
        match behind.and_then(|r| crate::kube::hooks::from_node(&m.lab, w, vmid, &at, r)) {
            Some(a) => of_cluster(a, host, port),
            None => Answer::Failed(
                7,
                format!("curl: (7) Failed to connect to {host} port {port} after 0 ms: Couldn't connect to server"),
            ),
        }
    })
}

/// Ports of nodes that Services are given.
const NODE_PORTS: std::ops::Range<u16> = 30_000..32_768;

fn request(sent: &Sent, scheme: &str, port: u16, path: &str) -> ServiceRequest {
    ServiceRequest {
        port: port.to_string(),
        scheme: scheme.to_owned(),
        method: sent.method.clone(),
        path: format!("/{path}"),
        headers: sent.headers.clone(),
        body: sent.body.clone(),
        ..Default::default()
    }
}

/// What comes back from a Service or a pod.
fn of_cluster(a: ServiceAnswer, host: &str, port: u16) -> Answer {
    match a.status {
        503 => Answer::Failed(
            7,
            format!("curl: (7) Failed to connect to {host} port {port} after 0 ms: Connection refused"),
        ),
        status => Answer::Body(status, a.body),
    }
}

/// The supervisor's endpoint behind `k3s token rotate`. Grade: source.
fn rotate(lab: &crate::Lab, w: &mut crate::world::World, vmid: u32, sent: &Sent) -> Answer {
    let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap_or_default();
    let given = sent.headers.iter().find(|h| h.0 == "authorization").and_then(|h| h.1.strip_prefix("Basic "));
    let user = given.and_then(crate::kube::text::unb64).and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    let old = user.strip_prefix("server:").unwrap_or_default();
    if sent.method != "PUT" {
        return Answer::Body(405, b"Method Not Allowed".to_vec());
    }
    match crate::kube::k3s::tokens::rotate(lab, w, vmid, old, body["newToken"].as_str().unwrap_or_default()) {
        Ok(()) => Answer::Body(200, Vec::new()),
        Err(e) if e.contains("401") => Answer::Body(401, e.into_bytes()),
        Err(e) => Answer::Body(500, e.into_bytes()),
    }
}

fn value_options() -> &'static [&'static str] {
    &[
        "-o",
        "--output",
        "-H",
        "--header",
        "-X",
        "--request",
        "-w",
        "--write-out",
        "-m",
        "--max-time",
        "--connect-timeout",
        "--retry",
        "--retry-delay",
        "--retry-max-time",
        "-u",
        "--user",
        "-d",
        "--data",
        "--cacert",
        "-e",
        "-A",
        "--user-agent",
        "--resolve",
        "--proto",
        "--cert",
        "--key",
        "-T",
        "-K",
        "--config",
        "-x",
        "--noproxy",
        "--ciphers",
    ]
}

/// What `curl -v` says of a certificate. Grade: document.
fn certificate(shown: &crate::kube::ingress::Shown) -> String {
    let (from, to) = shown.valid;
    let day = |ms: u64| super::date::show("%b %e %H:%M:%S %Y GMT", ms / 1000, 0);
    format!(
        "* Server certificate:\n*  subject: {}\n*  start date: {}\n*  expire date: {}",
        shown.subject,
        day(from),
        day(to)
    )
}

fn curl(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let joined: Vec<String> = c
            .args
            .iter()
            .filter(|a| a.starts_with('-') && !a.starts_with("--") && a.len() > 2 && a.ends_with('o'))
            .cloned()
            .collect();
        let mut skip = value_options().to_vec();
        skip.extend(joined.iter().map(String::as_str));
        let urls = c.operands(&skip);
        let flags = c.letters();
        if c.has(&["--version", "-V"]) {
            c.line("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1 OpenSSL/3.0.17");
            return 0;
        }
        let Some(url) = urls.first().cloned() else {
            return c
                .fail(2, "curl: no URL specified!\ncurl: try 'curl --help' or 'curl --manual' for more information");
        };
        let output = c.value(&["-o", "--output"]).or_else(|| {
            joined.first().and_then(|j| c.args.iter().position(|a| a == j)).and_then(|i| c.args.get(i + 1).cloned())
        });
        let output = output.or_else(|| {
            (flags.contains('O') || c.has(&["--remote-name"]))
                .then(|| url.rsplit('/').next().unwrap_or("index.html").to_owned())
        });
        let quiet = (flags.contains('s') || c.has(&["--silent"])) && !(flags.contains('S') || c.has(&["--show-error"]));
        let sent = sent(c).await;
        let (status, body) = match fetch(c, &url, &sent) {
            Answer::Failed(code, text) => {
                c.pause(if code == 28 { 5000 } else { 50 }).await;
                if let Some(w) = c.value(&["-w", "--write-out"]) {
                    c.print(&w.replace("%{http_code}", "000").replace("\\n", "\n"));
                }
                return if quiet { code } else { c.fail(code, &text) };
            }
            Answer::Body(s, b) => (s, b),
            Answer::Shown(s, b, shown) => {
                if url.starts_with("https:") && (flags.contains('v') || c.has(&["--verbose"])) {
                    let text = certificate(&shown);
                    c.complain(&text);
                }
                (s, b)
            }
        };
        c.pause(if body.len() > 4000 { 3000 } else { 120 }).await;
        if status >= 400 && (flags.contains('f') || c.has(&["--fail"])) {
            if let Some(w) = c.value(&["-w", "--write-out"]) {
                c.print(&w.replace("%{http_code}", &status.to_string()).replace("\\n", "\n"));
            }
            return if quiet {
                22
            } else {
                c.fail(22, &format!("curl: (22) The requested URL returned error: {status}"))
            };
        }
        if flags.contains('I') || c.has(&["--head"]) {
            c.line(&format!("HTTP/2 {status}\r\ncontent-length: {}\r\n\r", body.len()));
        } else {
            match output.as_deref() {
                None | Some("-") => c.bytes(&body),
                Some(o) => {
                    let path = c.path(o);
                    if let Err(e) = c.m.files.write(&c.who, &path, &body, false, 0o644) {
                        let text = format!("curl: (23) Failure writing output to destination: {e}");
                        return c.fail(23, &text);
                    }
                }
            }
        }
        if let Some(w) = c.value(&["-w", "--write-out"]) {
            c.print(
                &w.replace("%{http_code}", &status.to_string())
                    .replace("%{response_code}", &status.to_string())
                    .replace("%{url_effective}", &effective(&url))
                    .replace("\\n", "\n"),
            );
        }
        0
    })
}

fn wget(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let Some(url) =
            c.operands(&["-O", "--output-document", "-P", "--tries", "-t", "-T", "--timeout", "--header"]).pop()
        else {
            return c.fail(1, "wget: missing URL");
        };
        let flags = c.letters();
        let output = c
            .value(&["-O", "--output-document", "-qO"])
            .unwrap_or_else(|| url.rsplit('/').next().unwrap_or("index.html").to_owned());
        match fetch(c, &url, &Sent { method: "GET".to_owned(), ..Sent::default() }) {
            Answer::Body(200, b) | Answer::Shown(200, b, _) => {
                c.pause(if b.len() > 4000 { 3000 } else { 120 }).await;
                if output == "-" || flags.contains("O-") {
                    c.bytes(&b);
                    return 0;
                }
                let path = c.path(&output);
                match c.m.files.write(&c.who, &path, &b, false, 0o644) {
                    Ok(()) => 0,
                    Err(e) => {
                        let text = format!("{output}: {e}");
                        c.fail(3, &text)
                    }
                }
            }
            Answer::Body(s, _) | Answer::Shown(s, ..) => c.fail(8, &format!("ERROR {s}.")),
            Answer::Failed(6, t) => {
                c.fail(4, &t.replace("curl: (6) Could not resolve host: ", "wget: unable to resolve host address "))
            }
            Answer::Failed(_, t) => c.fail(4, &t),
        }
    })
}
