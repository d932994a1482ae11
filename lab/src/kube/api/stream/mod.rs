//! What goes on over a connection for longer: logs, commands in containers, forwarded ports.
pub mod exec;
pub mod forward;
pub mod log;
pub mod spdy;
pub mod terminal;

use base64::Engine as _;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha1::Digest;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::route::Target;
use super::{Body, Call, Request, sub};
use crate::kube::container::spec;
use crate::kube::schema::Kind;
use crate::kube::store::Failure;
use crate::kube::text::{arr, s};

/// A WebSocket over a connection of the API server.
pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The normal end of a WebSocket: clients take any other for a failure.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") }))
}

fn header<'a>(req: &'a Request, name: &str) -> &'a str {
    req.headers.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str())
}

/// The first of our protocols that the client offers, in our order.
fn protocol(req: &Request, ours: &[&'static str]) -> Option<&'static str> {
    let offered: Vec<&str> = header(req, "sec-websocket-protocol").split(',').map(str::trim).collect();
    ours.iter().copied().find(|p| offered.contains(p))
}

/// Agrees to a WebSocket; `run` has it once the connection has changed over.
///
/// # Errors
/// 400 when the client asks for none.
fn upgrade<F>(
    req: &Request,
    chosen: Option<&'static str>,
    run: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response<Body>, Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = header(req, "sec-websocket-key");
    let Some(on) =
        req.upgrade.clone().filter(|_| header(req, "upgrade").eq_ignore_ascii_case("websocket") && !key.is_empty())
    else {
        return Err(Failure::bad_request("Upgrade request required"));
    };
    let sum = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let accept = base64::engine::general_purpose::STANDARD.encode(sum);
    tokio::spawn(async move {
        if let Ok(io) = on.await {
            run(WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await).await;
        }
    });
    let mut r = Response::new(Empty::new().boxed_unsync());
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let words = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept.as_str())];
    for (k, v) in words.into_iter().chain(chosen.map(|p| ("sec-websocket-protocol", p))) {
        if let (Ok(k), Ok(v)) = (http::HeaderName::try_from(k), http::HeaderValue::from_str(v)) {
            r.headers_mut().insert(k, v);
        }
    }
    Ok(r)
}

/// The pod of a request and the name of the container it means.
///
/// # Errors
/// 404 without the pod, 400 for a container that it has not got or cannot be guessed.
fn container(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<(Value, String), Failure> {
    let pod = sub::target(call, kind, t)?;
    let pod_name = s(&pod, "/metadata/name").to_owned();
    let asked = call.req.query.text("container").unwrap_or_default().to_owned();
    if !asked.is_empty() {
        return match spec(&pod, &asked) {
            Some(_) => Ok((pod, asked)),
            None => Err(Failure::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
        };
    }
    let marked = s(&pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container").to_owned();
    let names = |p: &str| arr(&pod, p).iter().map(|c| s(c, "/name").to_owned()).collect::<Vec<_>>();
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    match main.as_slice() {
        _ if main.contains(&marked) => Ok((pod, marked)),
        [one] => Ok((pod.clone(), one.clone())),
        _ => {
            let more = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(Failure::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]{more}",
                main.join(" ")
            )))
        }
    }
}
