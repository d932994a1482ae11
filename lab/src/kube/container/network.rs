//! The network as a container sees it: names of the cluster, and the requests of `wget` and `curl`.
use std::sync::Arc;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::programs::{Said, Tool};
use crate::Client;
use crate::kube::api::route::Query;
use crate::kube::api::{self, Request};
use crate::kube::hooks::{self, ServiceAnswer, ServiceRequest};
use crate::kube::store::Store;
use crate::kube::text::{arr, s};

/// Options of the two clients that a value follows, by their letters and by their names.
const CURL: (&str, &[&str]) = (
    "owmXHduAebcTxrKyYCFEU",
    &[
        "--output",
        "--write-out",
        "--max-time",
        "--connect-timeout",
        "--request",
        "--header",
        "--data",
        "--data-raw",
        "--data-binary",
        "--data-urlencode",
        "--json",
        "--form",
        "--oauth2-bearer",
        "--noproxy",
        "--connect-to",
        "--interface",
        "--referer",
        "--cookie",
        "--cookie-jar",
        "--max-redirs",
        "--user",
        "--user-agent",
        "--retry",
        "--retry-delay",
        "--resolve",
        "--cacert",
        "--cert",
        "--key",
        "--proxy",
    ],
);
const WGET: (&str, &[&str]) = ("OTtPUY", &["--output-document", "--timeout", "--tries", "--header", "--post-data"]);

/// What a host name leads to.
enum Host {
    /// A Service with an address of its own.
    Service { ns: String, name: String, ip: String },
    /// Pods, each by its address.
    Pods { name: String, ips: Vec<String> },
}

/// Addresses behind a Service without an address of its own.
fn behind(store: &Store, ns: &str, name: &str) -> Vec<String> {
    let subsets = store.get("endpoints", ns, name).map(|e| arr(e, "/subsets")).unwrap_or_default();
    subsets.iter().flat_map(|x| arr(x, "/addresses")).map(|a| s(a, "/ip").to_owned()).collect()
}

fn resolve(store: &Store, own: &str, host: &str) -> Option<Host> {
    let words: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let domain = ["svc", "cluster", "local"];
    let of_cluster = |rest: &[&str]| rest.len() <= 3 && domain.starts_with(rest);
    if let [name, rest @ ..] = words.as_slice() {
        let (ns, rest) = rest.split_first().map_or((own, rest), |(ns, rest)| (*ns, rest));
        if let Some(o) = store.get("services", ns, name).filter(|_| of_cluster(rest)) {
            let (ns, name, ip) = (ns.to_owned(), (*name).to_owned(), s(o, "/spec/clusterIP").to_owned());
            return match ip.as_str() {
                "None" | "" => {
                    let ips = behind(store, &ns, &name);
                    (!ips.is_empty()).then(|| Host::Pods { name: format!("{name}.{ns}.svc.cluster.local"), ips })
                }
                _ => Some(Host::Service { ns, name, ip }),
            };
        }
    }
    // a pod by its own name below that of its Service
    let [name, service, rest @ ..] = words.as_slice() else { return None };
    let (ns, rest) = rest.split_first().map_or((own, rest), |(ns, rest)| (*ns, rest));
    store.get("services", ns, service).filter(|_| of_cluster(rest))?;
    let is = |p: &&Arc<Value>| s(p, "/spec/hostname") == *name && s(p, "/spec/subdomain") == *service;
    let ip = store.all("pods", ns).find(is).map(|p| s(p, "/status/podIP")).filter(|ip| !ip.is_empty())?;
    Some(Host::Pods { name: format!("{name}.{service}.{ns}.svc.cluster.local"), ips: vec![ip.to_owned()] })
}

/// A command line taken apart: letters, options with their values, and operands.
#[derive(Default)]
struct Asked {
    letters: String,
    values: Vec<(String, String)>,
    operands: Vec<String>,
}

impl Asked {
    fn of(args: &[&str], (letters, names): (&str, &[&str])) -> Asked {
        let mut out = Asked::default();
        let mut args = args.iter();
        while let Some(a) = args.next() {
            if a.starts_with("--") {
                let (name, value) = a.split_once('=').map_or((*a, None), |(k, v)| (k, Some(v)));
                match value.or_else(|| names.contains(&name).then(|| args.next().copied()).flatten()) {
                    Some(v) => out.values.push((name.to_owned(), v.to_owned())),
                    None => out.values.push((name.to_owned(), String::new())),
                }
            } else if let Some(cluster) = a.strip_prefix('-').filter(|c| !c.is_empty()) {
                let end = cluster.find(|c| letters.contains(c)).unwrap_or(cluster.len());
                out.letters += &cluster[..end];
                if let Some(c) = cluster[end..].chars().next() {
                    let rest = &cluster[end + c.len_utf8()..];
                    let value = if rest.is_empty() { args.next().copied().unwrap_or_default() } else { rest };
                    out.values.push((format!("-{c}"), value.to_owned()));
                }
            } else {
                out.operands.push((*a).to_owned());
            }
        }
        out
    }

    fn has(&self, letter: char, name: &str) -> bool {
        self.letters.contains(letter) || self.values.iter().any(|(k, _)| k == name)
    }

    /// Whether errors are not told.
    fn is_quiet(&self) -> bool {
        self.has('s', "--silent") && !self.has('S', "--show-error")
    }

    fn value(&self, names: &[&str]) -> Option<&str> {
        self.values.iter().rev().find(|(k, _)| names.contains(&k.as_str())).map(|(_, v)| v.as_str())
    }
}

impl Tool {
    fn resolved(&self, host: &str) -> Option<Host> {
        let own = s(&self.0.pod, "/metadata/namespace");
        self.0.lab.with(|w| resolve(&w.clusters.get(&self.0.cluster)?.store, own, host))
    }

    pub(super) fn nslookup(&self, args: &[&str]) -> Said {
        let name = args.iter().find(|a| !a.starts_with('-')).copied().unwrap_or_default();
        let head = "Server:\t\t10.43.0.10\nAddress:\t10.43.0.10:53\n\n";
        let found = match self.resolved(name) {
            Some(Host::Service { ns, name, ip }) => (format!("{name}.{ns}.svc.cluster.local"), vec![ip]),
            Some(Host::Pods { name, ips }) => (name, ips),
            None => {
                let err = format!("** server can't find {name}: NXDOMAIN\n\n");
                return Said { code: 1, out: head.into(), err };
            }
        };
        let lines: String = found.1.iter().map(|ip| format!("Name:\t{}\nAddress: {ip}\n", found.0)).collect();
        Said::out(format!("{head}{lines}\n"))
    }

    /// `wget` and `curl` inside the cluster.
    pub(super) async fn fetch(&self, args: &[&str]) -> Said {
        let curl = self.1 == "curl";
        let asked = Asked::of(args, if curl { CURL } else { WGET });
        let Some(url) = asked.operands.first() else {
            return if curl {
                Said::err(2, "curl: (2) no URL specified\n")
            } else {
                Said::err(1, "wget: missing URL\n")
            };
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (at, path) = rest.find('/').map_or((rest, "/"), |i| rest.split_at(i));
        let (host, port) = at.split_once(':').unwrap_or((at, if scheme == "https" { "443" } else { "80" }));
        if scheme == "https" && curl && self.is_api(host) {
            if !asked.has('k', "--insecure") && asked.value(&["--cacert"]).is_none() {
                let why = "curl: (60) SSL certificate problem: unable to get local issuer certificate\n";
                return Said::err(60, if asked.is_quiet() { "" } else { why });
            }
            let server = self.0.lab.with(|w| hooks::server(w, &self.0.cluster));
            let a = match server {
                Some(vmid) => Ok(self.api(&asked, path, vmid).await),
                None => Err(()),
            };
            return self.curl(&asked, url, (host, port), Some(a));
        }
        let answer = self.answer(scheme, host, port, path);
        if curl { self.curl(&asked, url, (host, port), answer) } else { self.wget(&asked, (host, path), answer) }
    }

    /// Whether a host is the API server's.
    fn is_api(&self, host: &str) -> bool {
        let service = |ns: &str, name: &str| ns == "default" && name == "kubernetes";
        host == self.0.env.get("KUBERNETES_SERVICE_HOST").map_or("", String::as_str)
            || matches!(self.resolved(host), Some(Host::Service { ns, name, .. }) if service(&ns, &name))
    }

    /// A request to the API server in guest `vmid`, by whoever its headers say.
    async fn api(&self, asked: &Asked, path: &str, vmid: u32) -> ServiceAnswer {
        let headers: Vec<(String, String)> = asked
            .values
            .iter()
            .filter(|(k, _)| matches!(k.as_str(), "-H" | "--header"))
            .filter_map(|(_, v)| v.split_once(':'))
            .map(|(k, v)| (k.trim().to_lowercase(), v.trim().to_owned()))
            .collect();
        let header = |name: &str| headers.iter().find(|h| h.0 == name).map(|h| h.1.clone()).unwrap_or_default();
        let body = asked.value(&["-d", "--data", "--data-raw"]).unwrap_or_default().to_owned();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request {
            method: asked.value(&["-X", "--request"]).unwrap_or(method).parse().unwrap_or_default(),
            path: path.to_owned(),
            query: Query::parse(query),
            accept: header("accept"),
            content_type: api::media_type(&header("content-type")).to_owned(),
            agent: "curl/8.14.1".to_owned(),
            headers: headers.clone(),
            body: body.into(),
            upgrade: None,
            client: Client::Foreign,
        };
        // such an answer has no end, and nobody reads it here
        let watches = path.contains("/watch/") || ["watch", "follow"].iter().any(|f| request.query.flag(f));
        let r = api::handle(&self.0.lab, &self.0.cluster, vmid, None, &request).await;
        let status = r.status().as_u16();
        let kind = r.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let read = if watches { None } else { r.into_body().collect().await.ok() };
        ServiceAnswer { status, content_type: kind, body: read.map(|b| b.to_bytes().to_vec()).unwrap_or_default() }
    }

    fn curl(&self, asked: &Asked, url: &str, at: (&str, &str), answer: Option<Result<ServiceAnswer, ()>>) -> Said {
        let (host, port) = at;
        let told = |status: u16, length: usize| {
            let text = asked.value(&["-w", "--write-out"]).unwrap_or_default();
            let text = text.replace("%{http_code}", &format!("{status:03}"));
            let text = text.replace("%{response_code}", &format!("{status:03}"));
            let text = text.replace("%{size_download}", &length.to_string()).replace("%{url_effective}", url);
            text.replace("%{time_total}", "0.001204").replace("\\n", "\n").replace("\\t", "\t")
        };
        let quiet = asked.is_quiet();
        let failed = |code: i32, why: String, status: u16| Said {
            code,
            out: told(status, 0).into_bytes(),
            err: if quiet { String::new() } else { format!("curl: ({code}) {why}\n") },
        };
        let a = match answer {
            None => return failed(6, format!("Could not resolve host: {host}"), 0),
            Some(Err(())) => {
                let why = format!("Failed to connect to {host} port {port} after 1 ms: Could not connect to server");
                return failed(7, why, 0);
            }
            Some(Ok(a)) if a.status >= 400 && asked.has('f', "--fail") => {
                return failed(22, format!("The requested URL returned error: {}", a.status), a.status);
            }
            Some(Ok(a)) => a,
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n",
            a.status,
            a.reason(),
            a.content_type,
            a.body.len()
        );
        let only = asked.has('I', "--head");
        let mut out = if only || asked.has('i', "--include") { head.clone().into_bytes() } else { Vec::new() };
        if !only {
            out.extend(&a.body);
        }
        if let Some(file) = asked.value(&["-o", "--output"]) {
            self.save(file, &std::mem::take(&mut out));
        }
        out.extend(told(a.status, if only { 0 } else { a.body.len() }).into_bytes());
        let mut err = String::new();
        if asked.has('v', "--verbose") {
            let path = url.split_once("://").map_or(url, |(_, r)| r).split_once('/').map_or("", |(_, p)| p);
            let method = if only { "HEAD" } else { asked.value(&["-X", "--request"]).unwrap_or("GET") };
            err = format!(
                "* Connected to {host} port {port}\n> {method} /{path} HTTP/1.1\n> Host: {host}\n> User-Agent: curl/8.14.1\n> Accept: */*\n> \n"
            );
            head.lines().for_each(|l| err += &format!("< {l}\n"));
        }
        Said { code: 0, out, err }
    }

    fn wget(&self, asked: &Asked, at: (&str, &str), answer: Option<Result<ServiceAnswer, ()>>) -> Said {
        let (host, path) = at;
        let a = match answer {
            None => return Said::err(1, format!("wget: bad address '{host}'\n")),
            Some(Err(())) => {
                let ip = match self.resolved(host) {
                    Some(Host::Service { ip, .. }) => ip,
                    Some(Host::Pods { ips, .. }) => ips.into_iter().next().unwrap_or_default(),
                    None => host.to_owned(),
                };
                return Said::err(1, format!("wget: can't connect to remote host ({ip}): Connection refused\n"));
            }
            Some(Ok(a)) if a.status >= 400 => {
                let text = format!("{} {}", a.status, a.reason());
                return Said::err(1, format!("wget: server returned error: HTTP/1.1 {}\n", text.trim_end()));
            }
            Some(Ok(a)) => a,
        };
        let last = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let named = if last.is_empty() { "index.html" } else { last };
        let told = |text: String| if asked.has('q', "--quiet") { String::new() } else { text };
        if asked.has(' ', "--spider") {
            return Said { code: 0, out: Vec::new(), err: told("remote file exists\n".to_owned()) };
        }
        match asked.value(&["-O", "--output-document"]).unwrap_or(named) {
            "-" => Said { code: 0, out: a.body, err: told("written to stdout\n".to_owned()) },
            file => {
                self.save(file, &a.body);
                Said { code: 0, out: Vec::new(), err: told(format!("saving to '{file}'\n'{file}' saved\n")) }
            }
        }
    }

    fn save(&self, file: &str, body: &[u8]) {
        let path = if file.starts_with('/') { file.to_owned() } else { format!("{}/{file}", self.0.cwd) };
        if path != "/dev/null" {
            self.0.fs.add_file(path.replace("//", "/"), body, 0o644);
        }
    }

    /// What answers there: nothing has the name, nobody listens, or an answer.
    fn answer(&self, scheme: &str, host: &str, port: &str, path: &str) -> Option<Result<ServiceAnswer, ()>> {
        let request = ServiceRequest {
            port: port.to_owned(),
            scheme: scheme.to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            ..ServiceRequest::default()
        };
        let own = s(&self.0.pod, "/metadata/name") == host || matches!(host, "localhost" | "127.0.0.1");
        let ip = match self.resolved(host).filter(|_| !own) {
            Some(Host::Service { ns, name, .. }) => {
                let request = ServiceRequest { namespace: ns, service: name, ..request };
                let a = self.0.lab.with(|w| hooks::service_http(&self.0.lab, w, &self.0.cluster, &request));
                return Some(if a.status == 503 { Err(()) } else { Ok(a) });
            }
            Some(Host::Pods { ips, .. }) => ips.into_iter().next()?,
            None if own => s(&self.0.pod, "/status/podIP").to_owned(),
            None => host.to_owned(),
        };
        let a = self.0.lab.with(|w| hooks::at_address(&self.0.lab, w, &self.0.cluster, &ip, request))?;
        Some(a.filter(|a| a.status != 503).ok_or(()))
    }
}
