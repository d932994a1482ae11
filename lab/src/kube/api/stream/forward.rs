//! `pods/portforward` over a WebSocket: kubectl's SPDY streams inside it, or two channels for each port.
use std::collections::BTreeMap;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{self, Frame};
use super::{Socket, Target, protocol, upgrade};
use crate::Lab;
use crate::kube::api::{Body, Call, sub};
use crate::kube::hooks::{self, ServiceAnswer, ServiceRequest};
use crate::kube::schema::Kind;
use crate::kube::store::Failure;
use crate::kube::text::s;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The pod whose ports are forwarded.
#[derive(Clone)]
struct Ports {
    lab: Lab,
    cluster: String,
    pod: Value,
}

/// Serves `portforward`.
///
/// # Errors
/// 400 when the pod does not run or no WebSocket is asked for, 404 without the pod.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<http::Response<Body>, Failure> {
    let pod = sub::target(call, kind, t)?;
    if s(&pod, "/status/phase") != "Running" {
        let why =
            format!("unable to forward port because pod is not running. Current status={}", s(&pod, "/status/phase"));
        return Err(Failure::bad_request(why));
    }
    let ports = Ports { lab: call.lab.clone(), cluster: call.cluster.to_owned(), pod };
    let chosen = protocol(
        call.req,
        &[TUNNEL, "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "portforward.k8s.io"],
    );
    let numbers: Vec<u16> =
        call.req.query.all("ports").flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
    upgrade(call.req, chosen, move |socket| async move {
        if chosen == Some(TUNNEL) {
            tunnel(socket, &ports).await;
        } else {
            channels(socket, &ports, &numbers).await;
        }
    })
}

/// One forwarded connection: bytes of requests come in, bytes of answers go out.
#[derive(Default)]
struct Connection {
    port: u16,
    bytes: Vec<u8>,
}

impl Ports {
    fn refused(&self, port: u16) -> String {
        let uid = s(&self.pod, "/metadata/uid");
        let name = format!("{}/{}", s(&self.pod, "/metadata/namespace"), s(&self.pod, "/metadata/name"));
        format!(
            "error forwarding port {port} to pod {name}, uid : failed to execute portforward in network namespace \"{uid}\": failed to connect to localhost:{port} inside namespace \"{uid}\", IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused IPv6 dial tcp6 [::1]:{port}: connect: connection refused "
        )
    }

    /// What listens on `port` answers `method path`.
    fn answer(
        &self,
        port: u16,
        method: &str,
        path: &str,
        head: &[(String, String)],
        body: &[u8],
    ) -> Option<ServiceAnswer> {
        let req = ServiceRequest {
            namespace: s(&self.pod, "/metadata/namespace").to_owned(),
            scheme: "http".into(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: head.to_vec(),
            body: body.to_vec(),
            ..ServiceRequest::default()
        };
        self.lab.with(|w| hooks::forwarded(&self.lab, w, (&self.cluster, &self.pod, port), req))
    }

    /// Whether something listens on `port`.
    fn listens(&self, port: u16) -> bool {
        self.lab.with(|w| hooks::listens(w, &self.cluster, &self.pod, port))
    }

    /// Takes bytes of a connection in; what goes back, and whether the connection ends.
    fn take(&self, c: &mut Connection, bytes: &[u8]) -> (Vec<u8>, bool) {
        c.bytes.extend(bytes);
        let mut out = Vec::new();
        while let Some((request, length)) = parse(&c.bytes) {
            let body: Vec<u8> = c.bytes.drain(..length).skip(request.body_at).collect();
            let Some(a) = self.answer(c.port, &request.method, &request.path, &request.headers, &body) else {
                return (out, true);
            };
            let reason = a.reason();
            let close = request.headers.iter().any(|(k, v)| k == "connection" && v.eq_ignore_ascii_case("close"));
            out.extend(
                format!(
                    "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
                    a.status,
                    a.content_type,
                    a.body.len(),
                    if close { "close" } else { "keep-alive" }
                )
                .into_bytes(),
            );
            if request.method != "HEAD" {
                out.extend(a.body);
            }
            if close {
                return (out, true);
            }
        }
        (out, false)
    }
}

struct Parsed {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body_at: usize,
}

/// A whole request at the start of `bytes`, and its length.
fn parse(bytes: &[u8]) -> Option<(Parsed, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_lowercase(), v.trim().to_owned())).collect();
    let length = headers.iter().find(|h| h.0 == "content-length").and_then(|h| h.1.parse::<usize>().ok()).unwrap_or(0);
    (bytes.len() >= end + length).then_some((Parsed { method, path, headers, body_at: end }, end + length))
}

/// kubectl's way: SPDY inside the WebSocket, a pair of streams for each connection.
async fn tunnel(socket: Socket, ports: &Ports) {
    let (mut to, mut from) = socket.split();
    let (mut reader, mut writer) = (spdy::Reader::default(), spdy::Writer::default());
    let mut data: BTreeMap<u32, (Connection, u32)> = BTreeMap::new();
    let mut errors: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(Ok(message)) = from.next().await {
        let Message::Binary(bytes) = message else { continue };
        reader.put(&bytes);
        let mut out = Vec::new();
        while let Some(frame) = reader.frame() {
            match frame {
                Frame::Open(id, headers) => {
                    let word = |k: &str| headers.get(k).cloned().unwrap_or_default();
                    out.extend(writer.reply(id));
                    if word("streamtype") == "error" {
                        errors.insert(word("requestid"), id);
                        continue;
                    }
                    let port = word("port").parse().unwrap_or(0);
                    let error = errors.get(&word("requestid")).copied().unwrap_or(0);
                    if ports.listens(port) {
                        data.insert(id, (Connection { port, bytes: Vec::new() }, error));
                    } else {
                        out.extend(spdy::data(error, ports.refused(port).as_bytes(), true));
                        out.extend(spdy::data(id, &[], true));
                    }
                }
                Frame::Data(id, bytes, last) => {
                    let Some((c, error)) = data.get_mut(&id) else { continue };
                    let (answer, ends) = ports.take(c, &bytes);
                    let over = ends || last;
                    if !answer.is_empty() {
                        out.extend(spdy::data(id, &answer, false));
                    }
                    if over {
                        out.extend(spdy::data(id, &[], true));
                        out.extend(spdy::data(*error, &[], true));
                        data.remove(&id);
                    }
                }
                Frame::Reset(id) => drop(data.remove(&id)),
                Frame::Ping(id) => out.extend(spdy::ping(id)),
                Frame::GoAway => return,
                Frame::Other => {}
            }
        }
        if !out.is_empty() && to.send(Message::Binary(out.into())).await.is_err() {
            return;
        }
    }
}

/// Two channels for each port: data and errors; each begins with the number of its port.
async fn channels(socket: Socket, ports: &Ports, numbers: &[u16]) {
    let (mut to, mut from) = socket.split();
    let mut all: Vec<Connection> = numbers.iter().map(|p| Connection { port: *p, bytes: Vec::new() }).collect();
    for (i, c) in all.iter().enumerate() {
        let Ok(channel) = u8::try_from(i * 2) else { return };
        for channel in [channel, channel + 1] {
            let [low, high] = c.port.to_le_bytes();
            if to.send(Message::Binary(vec![channel, low, high].into())).await.is_err() {
                return;
            }
        }
        if !ports.listens(c.port) {
            let mut frame = vec![channel + 1];
            frame.extend(ports.refused(c.port).bytes());
            let _ = to.send(Message::Binary(frame.into())).await;
        }
    }
    while let Some(Ok(message)) = from.next().await {
        let Message::Binary(bytes) = message else { continue };
        let Some((channel, data)) = bytes.split_first() else { continue };
        let Some(c) = all.get_mut(usize::from(channel / 2)) else { continue };
        let (answer, ends) = ports.take(c, data);
        let mut frame = vec![*channel];
        frame.extend(answer);
        if frame.len() > 1 && to.send(Message::Binary(frame.into())).await.is_err() {
            return;
        }
        if ends {
            let _ = to.send(super::goodbye()).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found_in_a_stream() {
        assert!(parse(b"GET / HTTP/1.1\r\nHost: x\r\n").is_none());
        let (p, n) = parse(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET").unwrap();
        assert_eq!((p.method.as_str(), p.path.as_str(), n), ("POST", "/a", 42));
    }
}
