//! Sending requests: who asks, envelope, retries of reads, classified answers.
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{ACCEPT, HeaderMap};
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;

use super::error::{ApiError, ApiResult, Fault};
use super::request::{self, Request};
use super::types::Proxmox;

/// `data` of a successful answer. A page of something in between, or half an answer, is none.
fn data_of(name: String, status: u16, mut body: Value, bytes: &[u8]) -> ApiResult<Value> {
    if let Some(data) = body.as_object_mut().and_then(|o| o.get_mut("data")) {
        return Ok(data.take());
    }
    let shown: String = String::from_utf8_lossy(bytes).trim().chars().take(100).collect();
    Err(ApiError::strange(name, status, format!("it has no `data`: `{shown}`")))
}

impl Proxmox {
    /// The server's version, for example `9.1.1`; asked once.
    ///
    /// # Errors
    /// What the request met.
    pub async fn version(&self, ctx: &Ctx) -> OpResult<String> {
        if let Some(v) = self.known_version() {
            return Ok(v);
        }
        let answer = self.send(ctx, &request::get("/version")).await?;
        let Some(v) = answer["version"].as_str().map(str::to_owned) else {
            return Err(
                ApiError::strange("GET /version".to_owned(), 200, format!("it names no version: `{answer}`")).into()
            );
        };
        *self.inner.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(v.clone());
        Ok(v)
    }

    /// The version, if it was asked for already.
    pub(super) fn known_version(&self) -> Option<String> {
        self.inner.version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request and returns `data`. A read is repeated when no answer came; a write never is,
    /// because its outcome is unknown then: the caller reads first.
    ///
    /// # Errors
    /// The classified answer.
    pub async fn send(&self, ctx: &Ctx, request: &Request) -> ApiResult<Value> {
        let answer = if request.is_read() {
            let told = AtomicBool::new(false);
            let worth = |e: &ApiError| {
                let again = e.is(&Fault::Unreachable) && !self.untrusted(e);
                // Nobody should wonder about the silence until the last try.
                if again && e.status == 0 && !told.swap(true, Ordering::Relaxed) {
                    let why = e.causes.first().map(|c| format!(": {c}")).unwrap_or_default();
                    ctx.message("info", format!("{}{why}; trying again", e.text));
                }
                again
            };
            ctx.retry(&self.inner.host, &request.name(), worth, || self.send_once(ctx, request)).await
        } else {
            let answer = self.send_once(ctx, request).await;
            ctx.edge();
            answer
        };
        match answer {
            Ok(v) => Ok(v),
            Err(e) => Err(self.explain_denied(ctx, e).await),
        }
    }

    fn untrusted(&self, e: &ApiError) -> bool {
        e.causes.iter().any(|c| c.contains("certificate"))
    }

    fn url_of(&self, ctx: &Ctx, request: &Request) -> OpResult<String> {
        let (host, port) = ctx.dialer.resolve(&self.inner.host, self.inner.port)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(format!("https://{host}:{port}/api2/json{}", request.path))
    }

    fn build(&self, ctx: &Ctx, request: &Request, who: HeaderMap) -> ApiResult<reqwest::RequestBuilder> {
        let url = self.url_of(ctx, request).map_err(|e| ApiError::transport(request.name(), e.message, e.causes))?;
        let mut b =
            self.inner.http.request(request.method.clone(), url).headers(who).header(ACCEPT, "application/json");
        if ctx.lab {
            b = b.header("x-gpuhost-clock", "shared");
        }
        if !request.query.is_empty() {
            b = b.query(&request.query);
        }
        Ok(b)
    }

    /// Sends a request once, whatever it is: for reads whose answer can be had only once.
    ///
    /// # Errors
    /// The classified answer.
    pub(super) async fn send_once(&self, ctx: &Ctx, request: &Request) -> ApiResult<Value> {
        let who = self.identity(ctx, request).await?;
        match self.send_as(ctx, request, who).await {
            // The server refused the ticket before it did anything: log in again, once.
            Err(e) if e.is(&Fault::Unauthorized) && self.inner.auth.forget() => {
                let who = self.identity(ctx, request).await?;
                self.send_as(ctx, request, who).await
            }
            other => other,
        }
    }

    /// Sends a request with these headers.
    pub(super) async fn send_as(&self, ctx: &Ctx, request: &Request, who: HeaderMap) -> ApiResult<Value> {
        let mut b = self.build(ctx, request, who)?;
        if let Some(body) = &request.body {
            b = b.json(body);
        }
        self.answer(request.name(), b.send().await).await
    }

    async fn answer(&self, name: String, got: reqwest::Result<reqwest::Response>) -> ApiResult<Value> {
        let response = match got {
            Ok(r) => r,
            Err(e) => return Err(self.no_answer(name, &e)),
        };
        let status = response.status();
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().map_or_else(
            || status.canonical_reason().unwrap_or_default().to_owned(),
            |r| String::from_utf8_lossy(r.as_bytes()).into_owned(),
        );
        let bytes = match response.bytes().await {
            Ok(b) => b,
            Err(e) => return Err(self.no_answer(name, &e)),
        };
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return data_of(name, status.as_u16(), body, &bytes);
        }
        let mut e = ApiError::read(name, status.as_u16(), &reason, &body);
        let text = String::from_utf8_lossy(&bytes);
        if body.is_null() && !text.trim().is_empty() {
            e.causes.push(text.trim().chars().take(300).collect());
        }
        Err(e)
    }

    /// Sends a request whose answer is a list: anything else is no empty one.
    ///
    /// # Errors
    /// The classified answer.
    pub async fn send_list(&self, ctx: &Ctx, request: &Request) -> ApiResult<Vec<Value>> {
        match self.send(ctx, request).await? {
            Value::Array(list) => Ok(list),
            other => {
                let shown: String = other.to_string().chars().take(100).collect();
                Err(ApiError::strange(request.name(), 200, format!("a list was expected, found `{shown}`")))
            }
        }
    }

    fn no_answer(&self, name: String, e: &reqwest::Error) -> ApiError {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(e);
        while let Some(s) = source {
            let text = s.to_string();
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            source = s.source();
        }
        let at = &self.inner.section.url;
        let refused = causes.iter().any(|c| c.contains("certificate") || c.contains("UnknownIssuer"));
        if !refused {
            let what = if e.is_timeout() { "did not answer in time" } else { "did not answer" };
            let mut out = ApiError::transport(name, format!("Proxmox at {at} {what}"), plain(causes));
            out.hint = Some(
                "is `proxmox.url` in the site file right (https://ADDRESS:8006), is that node up, is the VPN on? Then run it \
                 again: it compares first and continues"
                    .to_owned(),
            );
            return out;
        }
        let mut out = ApiError::transport(name, format!("nothing vouches for the certificate of {at}"), causes);
        if let Some(f) = self.inner.shown.refused() {
            out.causes.insert(0, format!("it shows the fingerprint {f}"));
        }
        out
    }

    /// Uploads a file; `content` is `iso` or `import`. Returns the task.
    ///
    /// # Errors
    /// The classified answer.
    pub async fn upload(
        &self,
        ctx: &Ctx,
        node: &str,
        storage: &str,
        content: &str,
        file: &str,
        bytes: Vec<u8>,
    ) -> ApiResult<String> {
        let r = request::post(format!("/nodes/{node}/storage/{storage}/upload"), Value::Null);
        let name = r.name();
        let b = self.build(ctx, &r, self.identity(ctx, &r).await?)?;
        // The order matters: the file comes last.
        let part = reqwest::multipart::Part::bytes(bytes).file_name(file.to_owned());
        let part = part
            .mime_str("application/octet-stream")
            .map_err(|e| ApiError::transport(name.clone(), e.to_string(), Vec::new()))?;
        let form = reqwest::multipart::Form::new().text("content", content.to_owned()).part("filename", part);
        let answer = self.answer(name, b.multipart(form).send().await).await;
        ctx.edge();
        let answer = answer?;
        match answer.as_str() {
            Some(upid) => Ok(upid.to_owned()),
            None => Err(ApiError::strange(r.name(), 200, format!("a task was expected, found `{answer}`"))),
        }
    }

    /// Like [`Proxmox::send`], with "it is not there" as `None`.
    ///
    /// # Errors
    /// Everything else.
    pub async fn find(&self, ctx: &Ctx, request: &Request) -> ApiResult<Option<Value>> {
        match self.send(ctx, request).await {
            Ok(v) => Ok(Some(v)),
            Err(e) if e.is(&Fault::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// What kept an answer away, without the layers of the HTTP library.
fn plain(causes: Vec<String>) -> Vec<String> {
    let known = |c: &str| {
        let low = c.to_lowercase();
        let words = [
            ("connection refused", "nothing listens at that address and port"),
            ("no route to host", "no way leads to that address"),
            ("network is unreachable", "no way leads to that address"),
            ("failed to lookup", "no such name is known (DNS)"),
            ("timed out", "it took too long"),
        ];
        words.iter().find(|(part, _)| low.contains(part)).map(|(_, said)| format!("{said} ({c})"))
    };
    if let Some(said) = causes.iter().rev().find_map(|c| known(c)) {
        return vec![said];
    }
    let layers = ["client error (Connect)", "tcp connect error", "error sending request", "client error (SendRequest)"];
    causes.into_iter().filter(|c| !layers.iter().any(|l| c.starts_with(l))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_of_something_in_between_is_no_empty_list() {
        let read = |body: Value, text: &str| data_of("GET /pools".to_owned(), 200, body, text.as_bytes());
        assert_eq!(read(json!({"data": null}), "").unwrap(), Value::Null);
        assert_eq!(read(json!({"data": [1]}), "").unwrap(), json!([1]));
        for (body, text) in [(Value::Null, "<html>Sign in"), (json!({}), "{}"), (json!([]), "[]")] {
            let e = read(body, text).unwrap_err();
            assert!(e.causes[0].contains(text) && e.hint.is_some(), "{e:?}");
        }
    }
}
