//! Answers and errors of the API and their envelope.
use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

/// A successful answer.
#[derive(Debug, Clone)]
pub struct Out {
    /// `data`.
    pub data: Value,
    /// `total` of lists that page.
    pub total: Option<usize>,
    /// `changes`: what waits to be applied.
    pub changes: Option<String>,
}

impl From<Value> for Out {
    fn from(data: Value) -> Self {
        Out { data, total: None, changes: None }
    }
}

/// A refused request.
#[derive(Debug, Clone, Default)]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// Message without trailing newline.
    pub message: String,
    /// Messages by parameter.
    pub errors: BTreeMap<String, String>,
    /// No JSON body, only the reason phrase (and the same as text).
    pub bare: bool,
    /// No body at all.
    pub silent: bool,
    /// The text of the body ends its line.
    pub newline: bool,
    /// The config lock of this VM is held: the handler is tried again until ten seconds have passed.
    pub flock: Option<u32>,
}

/// What a handler returns.
pub type Reply = Result<Out, ApiError>;

/// `data: null`.
///
/// # Errors
/// Never.
pub fn null() -> Reply {
    Ok(Value::Null.into())
}

/// `data: …`.
///
/// # Errors
/// Never.
pub fn data(v: impl Into<Value>) -> Reply {
    Ok(v.into().into())
}

impl ApiError {
    /// `500 message`.
    pub fn fail(message: impl Into<String>) -> Self {
        ApiError { code: 500, message: message.into().trim_end().to_owned(), ..Self::default() }
    }
    /// Any status.
    pub fn status(code: u16, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), ..Self::default() }
    }
    /// `400 Parameter verification failed.` for one parameter.
    pub fn param(key: &str, why: impl Into<String>) -> Self {
        Self::params(BTreeMap::from([(key.to_owned(), why.into())]))
    }
    /// `400 Parameter verification failed.`
    #[must_use]
    pub fn params(errors: BTreeMap<String, String>) -> Self {
        ApiError { code: 400, message: "Parameter verification failed.".to_owned(), errors, ..Self::default() }
    }
    /// `403 Permission check failed (path, privs)`.
    #[must_use]
    pub fn denied(path: &str, privs: &str) -> Self {
        Self::status(403, format!("Permission check failed ({path}, {privs})"))
    }
    /// A proxied request that did not get through: `595` and `596`, empty body.
    pub fn broken(code: u16, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), bare: true, silent: true, ..Self::default() }
    }
    /// `401`, empty body.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        ApiError { code: 401, message: message.into(), bare: true, silent: true, ..Self::default() }
    }
    /// An endpoint that the server has but the lab does not simulate.
    #[must_use]
    pub fn not_simulated(method: &str, path: &str) -> Self {
        tracing::info!("the lab does not serve {method} {path} (its endpoints are in lab/src/pve/router.rs)");
        Self::status(501, format!("Method '{method} {path}' not implemented"))
    }
    /// The config file of a VM is missing.
    #[must_use]
    pub fn no_config(node: &str, vmid: u32) -> Self {
        Self::fail(no_config(node, vmid))
    }
}

/// Text for a missing VM.
#[must_use]
pub fn no_config(node: &str, vmid: u32) -> String {
    format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")
}

fn response(code: u16, reason: Option<&str>, ctype: &str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut r = Response::new(Full::new(Bytes::from(body)));
    *r.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(text) = reason {
        let line = text.lines().next().unwrap_or_default().trim_end();
        if let Ok(p) = ReasonPhrase::try_from(line.as_bytes().to_vec()) {
            r.extensions_mut().insert(p);
        }
    }
    let h = r.headers_mut();
    for (k, v) in [
        ("cache-control", "max-age=0"),
        ("pragma", "no-cache"),
        ("server", "pve-api-daemon/3.0"),
        ("content-type", ctype),
    ] {
        if let Ok(v) = http::HeaderValue::from_str(v)
            && !v.is_empty()
        {
            h.insert(k, v);
        }
    }
    r
}

const JSON: &str = "application/json;charset=UTF-8";

/// The HTTP answer for `reply`; `extjs` is the web interface's form, `old` leaves `message` out of 400 as 8.x does.
#[must_use]
pub fn render(reply: Reply, extjs: bool, old: bool) -> Response<Full<Bytes>> {
    let bytes = |v: &Value| serde_json::to_vec(v).unwrap_or_default();
    match reply {
        Ok(out) => {
            let mut body = json!({ "data": out.data });
            if let Some(t) = out.total {
                body["total"] = json!(t);
            }
            if let Some(text) = out.changes {
                body["changes"] = json!(text);
            }
            if extjs {
                body["success"] = json!(1);
            }
            response(200, None, JSON, bytes(&body))
        }
        Err(e) if e.silent => response(e.code, Some(&e.message), "", Vec::new()),
        Err(e) if e.bare => {
            let newline = if e.newline { "\n" } else { "" };
            response(e.code, Some(&e.message), "", format!("{}{newline}", e.message).into_bytes())
        }
        Err(e) => {
            let newline = if e.code == 501 { "" } else { "\n" };
            let mut body = json!({ "data": null, "message": format!("{}{newline}", e.message) });
            if !e.errors.is_empty() {
                body["errors"] = json!(e.errors);
            }
            if extjs {
                body["success"] = json!(0);
                body["status"] = if e.code == 400 { json!("400") } else { json!(e.code) };
                return response(200, None, JSON, bytes(&body));
            }
            if old
                && e.code == 400
                && let Some(o) = body.as_object_mut()
            {
                o.shift_remove("message");
            }
            response(e.code, Some(&e.message), JSON, bytes(&body))
        }
    }
}
