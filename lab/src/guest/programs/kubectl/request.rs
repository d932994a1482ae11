//! Requests of the administrator to the API server of a node.
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Collected};
use serde_json::Value;

use super::super::Call;
use crate::Client;
use crate::guest::fs::Who;
use crate::kube::api::auth::User;
use crate::kube::api::route::Query;
use crate::kube::api::{Request, handle};
use crate::kube::hooks;
use crate::kube::k3s::membership;

const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// What objects are asked for in.
pub(super) const JSON: &str = "application/json";

/// A cluster by its id, and the machine whose API server answers.
pub(in super::super) type At = (String, u32);

/// The cluster of this machine, and a server of it whose API answers; this machine before others.
pub(in super::super) fn cluster(c: &Call, here: bool) -> Option<At> {
    let own = c.m.vmid;
    c.m.lab.with(|w| {
        let id = &membership::of_machine(w, own)?;
        let k = w.clusters.get(id)?;
        let others = k.nodes.values().map(|n| n.vmid).filter(|v| !here && *v != own);
        std::iter::once(own).chain(others).find(|v| hooks::api_up(w, id, *v)).map(|v| (id.clone(), v))
    })
}

/// The kubeconfig of this machine.
pub(super) fn kubeconfig(c: &mut Call) -> Result<Value, i32> {
    if !c.m.files.exists(KUBECONFIG) {
        let text = "The connection to the server localhost:8080 was refused - did you specify the right host or port?";
        return Err(c.fail(1, text));
    }
    let Ok(bytes) = c.m.files.read(&c.who.clone(), KUBECONFIG) else {
        let text = format!("error: error loading config file \"{KUBECONFIG}\": open {KUBECONFIG}: permission denied");
        return Err(c.fail(1, &text));
    };
    Ok(serde_saphyr::from_str(&String::from_utf8_lossy(&bytes)).unwrap_or(Value::Null))
}

/// The API server that kubectl would talk to here.
pub(super) fn server(c: &mut Call) -> Result<At, i32> {
    kubeconfig(c)?;
    cluster(c, true).ok_or_else(|| {
        let text = "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?";
        c.fail(1, text)
    })
}

/// Who asks: whose certificate the machine's kubeconfig has.
fn admin(c: &Call) -> User {
    let config = c.m.files.read(&Who::root(), KUBECONFIG).unwrap_or_default();
    let shown = || {
        let text = std::str::from_utf8(&config).ok()?;
        let coded = text.lines().find_map(|l| l.trim().strip_prefix("client-certificate-data: "))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&crate::kube::text::unb64(coded)?).ok()?;
        User::from_cert(&pem.contents, c.m.lab.clock().now_ms())
    };
    shown().unwrap_or_else(|| User {
        name: "system:admin".into(),
        groups: vec!["system:masters".into(), "system:authenticated".into()],
        ..User::default()
    })
}

async fn request(c: &Call, at: &At, req: Request) -> (u16, Vec<String>, Bytes) {
    let answer = handle(&c.m.lab, &at.0, at.1, Some(admin(c)), &req).await;
    let code = answer.status().as_u16();
    let told = answer.headers().get_all("warning").iter().filter_map(|v| v.to_str().ok().map(str::to_owned)).collect();
    (code, told, answer.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default())
}

fn blank(method: Method, path: &str, query: &str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        query: Query::parse(query),
        accept: JSON.to_owned(),
        content_type: String::new(),
        agent: "kubectl".to_owned(),
        headers: Vec::new(),
        body: Bytes::new(),
        upgrade: None,
        client: Client::Ours,
    }
}

/// One `GET`; the status and the body as it is.
pub(super) async fn fetch(c: &Call, at: &At, path: &str, query: &str, accept: &str) -> (u16, Bytes) {
    let req = Request { accept: accept.to_owned(), ..blank(Method::GET, path, query) };
    let (code, _, body) = request(c, at, req).await;
    (code, body)
}

/// As [`fetch`], for JSON.
pub(in super::super) async fn ask(c: &Call, at: &At, path: &str, query: &str, accept: &str) -> (u16, Value) {
    let (code, bytes) = fetch(c, at, path, query, accept).await;
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// Forms of a body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// An object, or options.
    Plain,
    /// A merge patch.
    Merge,
    /// A strategic merge patch.
    Strategic,
    /// A JSON patch.
    Operations,
    /// A server-side apply.
    Apply,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Plain => JSON,
            Form::Merge => "application/merge-patch+json",
            Form::Strategic => "application/strategic-merge-patch+json",
            Form::Operations => "application/json-patch+json",
            Form::Apply => "application/apply-patch+yaml",
        }
    }
}

/// A request that changes something.
pub(super) struct Change<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: &'a str,
    pub form: Form,
    pub body: &'a Value,
}

impl Change<'_> {
    /// Sends it; warnings of the server are printed, a refusal is its Status.
    pub async fn send(&self, c: &mut Call, at: &At) -> Result<Value, Value> {
        let req = Request {
            content_type: self.form.name().to_owned(),
            body: self.body.to_string().into(),
            ..blank(self.method.clone(), self.path, self.query)
        };
        let (code, told, bytes) = request(c, at, req).await;
        for t in told {
            let text = t.strip_prefix("299 - \"").and_then(|t| t.strip_suffix('"')).unwrap_or(&t).replace("\\\"", "\"");
            c.complain(&format!("Warning: {text}"));
        }
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if code < 300 { Ok(body) } else { Err(body) }
    }
}

/// What the server's refusal is to kubectl; `doing` stands before it (`error when creating "f"`).
pub(super) fn refusal(answer: &Value, doing: &str) -> String {
    let why = answer["reason"].as_str().filter(|r| !r.is_empty()).unwrap_or("Unknown");
    let text = answer["message"].as_str().unwrap_or_default();
    match why {
        "Invalid" => invalid(answer),
        _ if doing.is_empty() => format!("Error from server ({why}): {text}"),
        _ => format!("Error from server ({why}): {doing}: {text}"),
    }
}

/// An object that is not valid: its kind and name, then every cause.
fn invalid(answer: &Value) -> String {
    let of = |f: &str| answer["details"][f].as_str().unwrap_or_default();
    let head = format!("The {} \"{}\" is invalid: ", of("kind"), of("name"));
    let mut causes: Vec<String> = Vec::new();
    for cause in answer["details"]["causes"].as_array().into_iter().flatten() {
        let part = |f: &str| cause[f].as_str().unwrap_or_default();
        let text = format!("{}: {}", part("field"), part("message"));
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    match &causes[..] {
        [] => format!("{head}{}", answer["message"].as_str().unwrap_or_default()),
        [one] => format!("{head}{one}"),
        many => many.iter().fold(head, |all, c| format!("{all}\n* {c}")),
    }
}

/// Prints a refusal.
pub(super) fn refused(c: &mut Call, answer: &Value) -> i32 {
    let text = refusal(answer, "");
    c.fail(1, &text)
}
