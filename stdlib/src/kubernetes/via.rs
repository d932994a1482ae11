//! Requests to a Service from inside the cluster's network, sent by a node.
//!
//! The API server's service proxy drops the `Authorization` header, so whatever needs one goes this way.
use serde_json::Value;

use super::Cluster;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::core::units::Secret;
use crate::options;
use crate::ssh::{Host, quote};

options! {
    /// A request to a Service.
    pub struct ServiceRequestOptions {
        /// Path with its query.
        path: String = "/".to_owned(),
        /// HTTP method.
        method: String = "GET".to_owned(),
        /// Sent as `Authorization: token …`.
        token: Option<Secret> = None,
        /// JSON body.
        body: Value = Value::Null,
        /// Sending it twice is harmless: after an interruption it is sent again instead of asked about.
        repeatable: bool = false,
    }
}

/// `namespace/name:port` in parts.
fn parts(service: &str) -> OpResult<(&str, &str, &str)> {
    let bad = || {
        OpError::invalid(format!("`{service}` is not a service"))
            .hint("write `namespace/name:port`, for example `jupyterhub/hub:8081`")
    };
    let (ns, rest) = service.split_once('/').ok_or_else(bad)?;
    let (name, port) = rest.split_once(':').ok_or_else(bad)?;
    Ok((ns, name, port))
}

impl Cluster {
    /// Sends a request from `host` to a Service: `(status, body)`.
    ///
    /// # Errors
    /// `not_found` without the Service; `unreachable` when nothing answers behind it.
    pub async fn request_service(
        &self,
        ctx: &Ctx,
        host: &Host,
        service: &str,
        o: &ServiceRequestOptions,
    ) -> OpResult<(u16, String)> {
        let (ns, name, port) = parts(service)?;
        let found = self.get_object(ctx, "service", ns, name).await?;
        let ip = found["spec"]["clusterIP"]
            .as_str()
            .filter(|ip| *ip != "None")
            .ok_or_else(|| OpError::invalid(format!("service `{ns}/{name}` has no cluster address")))?;
        let target = format!("{} {service}{}", o.method, o.path);
        let reads = o.method == "GET";
        // HTTP's own promise; for other methods the recipe's.
        let harmless = o.repeatable || matches!(o.method.as_str(), "PUT" | "DELETE");
        let op = match (reads, harmless) {
            (true, _) => Op::read("kubernetes", "request_service", target),
            (_, true) => Op::write("kubernetes", "request_service", target),
            _ => Op::run("kubernetes", "request_service", target),
        };
        let mut script = format!("curl -sS -m 30 -w '\\n%{{http_code}}' -X {} -H @-", quote(&o.method));
        if !o.body.is_null() {
            script.push_str(&format!(" --data {}", quote(&o.body.to_string())));
        }
        script.push_str(&format!(" {}", quote(&format!("http://{ip}:{port}{}", o.path))));
        // headers go by standard input: a token on a command line is visible to every user of the node
        let mut headers = "Content-Type: application/json\n".to_owned();
        if let Some(a) = &o.token {
            headers.push_str(&format!("Authorization: token {}\n", a.reveal()));
        }
        ctx.run_op(op, |s| async move {
            let send = async {
                let out = host.exec_raw(s.ctx(), &script, headers.as_bytes()).await.map_err(|e| e.on(host.name()))?;
                if out.code != 0 {
                    let mut e = OpError::unreachable(format!("service `{service}` does not answer")).on(service);
                    e.causes = out.last_words();
                    return Err(e);
                }
                let (body, status) = out.stdout.trim_end().rsplit_once('\n').unwrap_or(("", out.stdout.trim()));
                Ok((status.parse().unwrap_or(0), body.to_owned()))
            };
            if reads {
                return send.await;
            }
            s.act(service, Vec::<Change>::new(), send).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_three_parts() {
        assert_eq!(parts("a/b:80").unwrap(), ("a", "b", "80"));
        assert!(parts("a/b").is_err() && parts("b:80").is_err());
    }
}
