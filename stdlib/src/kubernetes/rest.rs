//! Requests to the API server: paths, and what a refusal means. No I/O.
use serde_json::Value;

use super::kinds::Kind;
use crate::core::error::{Kind as ErrorKind, OpError, OpResult};

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// HTTP method.
    pub method: http::Method,
    /// Path with its query, begins with `/`.
    pub path: String,
    /// `content-type` of the body.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// A GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::bare(http::Method::GET, path)
    }
    /// A DELETE without a body.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::bare(http::Method::DELETE, path)
    }
    /// A DELETE with its options.
    pub fn delete_so(path: impl Into<String>, options: &Value) -> Self {
        Self::json(http::Method::DELETE, path, "application/json", options)
    }
    /// A POST of a JSON object.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::json(http::Method::POST, path, "application/json", body)
    }
    /// A merge patch.
    pub fn merge(path: impl Into<String>, body: &Value) -> Self {
        Self::json(http::Method::PATCH, path, "application/merge-patch+json", body)
    }
    /// A server-side apply.
    pub fn apply(path: impl Into<String>, body: &Value) -> Self {
        Self::json(http::Method::PATCH, path, "application/apply-patch+yaml", body)
    }
    fn bare(method: http::Method, path: impl Into<String>) -> Self {
        Request { method, path: path.into(), content_type: "", body: Vec::new() }
    }
    fn json(method: http::Method, path: impl Into<String>, content_type: &'static str, body: &Value) -> Self {
        Request { method, path: path.into(), content_type, body: body.to_string().into_bytes() }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
    /// The body as JSON, which a granted request has to have.
    ///
    /// # Errors
    /// `failed` for another one: something that is no API server answered.
    pub fn parsed(&self, target: &str) -> OpResult<Value> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let text: String = self.text().chars().take(200).collect();
            OpError::failed("the API server's answer is no JSON")
                .on(target)
                .because(e.to_string())
                .because(text)
                .hint("does a proxy answer in its place? `curl -k https://SERVER:6443/version` shows")
        })
    }
    /// Whether the request was granted.
    #[must_use]
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
    /// The refusal as an error on `target`.
    #[must_use]
    pub fn error(&self, target: &str) -> OpError {
        let status = self.json();
        let said = status["message"].as_str().map_or_else(|| self.text().trim().to_owned(), str::to_owned);
        let kind = match self.status {
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            401 | 403 => ErrorKind::Denied,
            400 | 406 | 415 | 422 => ErrorKind::Invalid,
            429 | 502..=504 => ErrorKind::Unreachable,
            _ => ErrorKind::Failed,
        };
        let room = said
            .strip_prefix("namespaces \"")
            .and_then(|r| r.strip_suffix("\" not found"))
            .filter(|_| self.status == 404);
        let room = room.filter(|r| !target.ends_with(&format!(" {r}"))).map(str::to_owned);
        let message = match kind {
            ErrorKind::NotFound => match &room {
                Some(r) => format!("the namespace {r} does not exist"),
                None => "not found in the cluster".to_owned(),
            },
            ErrorKind::Conflict => "the API server reports a conflict".to_owned(),
            ErrorKind::Denied => "the API server refused".to_owned(),
            ErrorKind::Invalid => "the API server calls the request wrong".to_owned(),
            _ => format!("the API server answered {}", self.status),
        };
        let wrong = faults_of(&status);
        let mut e = OpError::new(kind, message).on(target);
        match wrong.as_slice() {
            // a list of faults reads better one by one than in the message that joins them
            [_, _, ..] if self.status == 422 => e.causes = wrong,
            _ => {
                let more =
                    wrong.into_iter().filter(|w| !said.contains(w.split_once(": ").map_or("", |(_, text)| text)));
                e.causes = std::iter::once(said.clone()).chain(more).collect();
            }
        }
        if let Some(r) = room {
            e = e.hint(format!("make it first: `cluster.ensure_namespace(\"{r}\")`"));
        }
        if self.status == 401 {
            e = e.hint("the client certificate of the kubeconfig is not valid for this cluster: read it again with `k3s::connect`");
        }
        if self.status == 422 && e.hint.is_none() {
            e = e.hint("each cause begins with the field it is about; nothing was changed");
        }
        e
    }
}

/// `field: what is wrong with it`, each once.
fn faults_of(status: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for cause in status["details"]["causes"].as_array().into_iter().flatten() {
        if let (Some(field), Some(message)) = (cause["field"].as_str(), cause["message"].as_str()) {
            let text = format!("{field}: {message}");
            if !out.contains(&text) {
                out.push(text);
            }
        }
    }
    out
}

/// Escapes one path or query part.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// `?a=b&c=d`, or nothing.
#[must_use]
pub fn query(parts: &[(&str, &str)]) -> String {
    let used: Vec<_> = parts.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", escape(v))).collect();
    if used.is_empty() { String::new() } else { format!("?{}", used.join("&")) }
}

/// The path of a collection; `namespace` empty means all of them.
#[must_use]
pub fn collection(kind: &Kind, namespace: &str) -> String {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    if kind.namespaced && !namespace.is_empty() {
        format!("{root}/namespaces/{}/{}", escape(namespace), kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    }
}

/// The path of one object. Namespaced kinds without a namespace live in `default`.
#[must_use]
pub fn item(kind: &Kind, namespace: &str, name: &str) -> String {
    let ns = if kind.namespaced && namespace.is_empty() { "default" } else { namespace };
    format!("{}/{}", collection(kind, ns), escape(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::kinds::builtin;

    #[test]
    fn paths_follow_group_and_scope() {
        let find = |n: &str| builtin().into_iter().find(|k| k.answers_to(n)).unwrap();
        assert_eq!(item(&find("node"), "", "a"), "/api/v1/nodes/a");
        assert_eq!(item(&find("po"), "", "a"), "/api/v1/namespaces/default/pods/a");
        assert_eq!(collection(&find("deploy"), "x"), "/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(collection(&find("Deployment"), ""), "/apis/apps/v1/deployments");
        assert_eq!(query(&[("a", "x=y,z"), ("b", "")]), "?a=x%3Dy%2Cz");
    }

    #[test]
    fn refusals_carry_what_the_server_said() {
        let body = br#"{"kind":"Status","message":"Apply failed","details":{"causes":[{"field":".spec.a","message":"conflict with \"helm\""}]}}"#;
        let e = Reply { status: 409, body: body.to_vec() }.error("x");
        assert!(e.is(ErrorKind::Conflict));
        assert_eq!(e.causes, ["Apply failed", ".spec.a: conflict with \"helm\""]);
        let body = br#"{"message":"Node \"n\" is invalid: [metadata.labels: bad, spec.x: wrong]","details":{"causes":[
            {"field":"metadata.labels","message":"bad"},{"field":"metadata.labels","message":"bad"},{"field":"spec.x","message":"wrong"}]}}"#;
        let e = Reply { status: 422, body: body.to_vec() }.error("n");
        assert_eq!(e.causes, ["metadata.labels: bad", "spec.x: wrong"]);
        assert!(e.hint.is_some());
    }
}
