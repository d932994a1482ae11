//! Which requests to the API server are sent again, and after which answers: reads, and applies, which the server
//! recognises as the same.
use super::rest::{Reply, Request};
use crate::core::ctx::Ctx;
use crate::core::error::OpError;

/// What came instead of an answer that counts.
#[derive(Clone)]
pub(super) enum Miss {
    /// No server answered.
    Lost(Box<OpError>),
    /// A server answered that it cannot answer now.
    Busy(Reply),
}

impl From<Miss> for OpError {
    fn from(m: Miss) -> OpError {
        match m {
            Miss::Lost(e) => *e,
            Miss::Busy(r) => {
                let said = r.json()["message"].as_str().map_or_else(|| r.text().trim().to_owned(), str::to_owned);
                OpError::unreachable(format!("the API server answered {}", r.status)).because(said)
            }
        }
    }
}

/// Whether sending it twice is as good as sending it once.
fn is_harmless(r: &Request) -> bool {
    r.method == http::Method::GET || r.content_type.contains("apply-patch")
}

/// Whether what answered was not the API server, but something behind it.
fn is_passed_on(r: &Request) -> bool {
    r.path.contains("/proxy") || r.path.starts_with("/apis/metrics.k8s.io")
}

/// Whether a server that answers so may answer differently in a moment.
pub(super) fn is_busy(request: &Request, reply: &Reply) -> bool {
    match reply.status {
        // A disruption budget says so, too, and means it.
        429 => !request.path.ends_with("/eviction"),
        502..=504 => is_harmless(request) && !is_passed_on(request),
        500 => is_harmless(request) && reply.text().contains("etcdserver:"),
        _ => false,
    }
}

/// Whether another try makes sense. A wait looks again by itself.
pub(super) fn is_worth_it(ctx: &Ctx, request: &Request, miss: &Miss) -> bool {
    let may = match miss {
        Miss::Lost(_) => is_harmless(request),
        Miss::Busy(_) => true,
    };
    may && !ctx.is_looking()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_may_pass_and_harms_nobody_is_sent_again() {
        let reply = |status: u16, text: &str| Reply { status, body: text.as_bytes().to_vec() };
        let (get, post) = (Request::get("/api/v1/nodes"), Request::post("/api/v1/pods", &json!({})));
        let apply = Request::apply("/api/v1/nodes/a", &json!({}));
        let busy = |r: &Request, status: u16| is_busy(r, &reply(status, "etcdserver: leader changed"));
        assert!(busy(&get, 503) && busy(&apply, 504) && busy(&get, 500) && busy(&post, 429));
        assert!(!busy(&post, 503) && !busy(&post, 500) && !busy(&get, 404) && !busy(&get, 403) && !busy(&apply, 409));
        assert!(!is_busy(&get, &reply(500, "a bug")));
        assert!(!busy(&Request::post("/api/v1/namespaces/a/pods/b/eviction", &json!({})), 429));
        assert!(!busy(&Request::get("/api/v1/namespaces/a/services/b:80/proxy/"), 503), "the service answers so");
        assert!(!busy(&Request::get("/apis/metrics.k8s.io/v1beta1/nodes"), 503));
    }
}
