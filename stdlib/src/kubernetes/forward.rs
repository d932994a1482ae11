//! A port of this machine that leads to a port of a pod, for as long as the run lives.
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::net::TcpListener;

use super::Cluster;
use crate::core::ctx::{Ctx, Run};
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;

/// Ends the forward when the run drops it.
struct Open {
    port: u16,
    task: tokio::task::AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Opens a port on 127.0.0.1 that leads to `port` of a pod; the same one when it is open already.
    ///
    /// # Errors
    /// `not_found` without the pod; `invalid` for a number that is no port.
    pub async fn forward(&self, ctx: &Ctx, ns: &str, pod: &str, port: i64) -> OpResult<u16> {
        let there = u16::try_from(port)
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| OpError::invalid(format!("{port} is no TCP port")))?;
        let op = Op::read("kubernetes", "port_forward", format!("pod {ns}/{pod}")).args(&port);
        ctx.run_op(op, |s| async move {
            let ctx = s.ctx();
            let key = format!("forward {} {ns}/{pod}:{there}", self.name());
            if let Some(open) = ctx.cached::<Open>(&key) {
                return Ok(open.port);
            }
            self.get_object(ctx, "pod", ns, pod).await?;
            let fail = |e: std::io::Error| OpError::failed("no local port can be opened").because(e.to_string());
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(fail)?;
            let local = listener.local_addr().map_err(fail)?.port();
            let to = Goal { cluster: self.clone(), ns: ns.to_owned(), pod: pod.to_owned(), port: there };
            let task = ctx.rt.spawn(serve(to, Arc::downgrade(ctx.run()), ctx.cancel.clone(), listener));
            ctx.keep(key, Arc::new(Open { port: local, task: task.abort_handle() }));
            Ok(local)
        })
        .await
    }
}

/// Where a forward leads.
#[derive(Clone)]
struct Goal {
    cluster: Cluster,
    ns: String,
    pod: String,
    port: u16,
}

/// The run owns the forward: the task must not keep the run alive.
async fn serve(to: Goal, run: Weak<Run>, cancel: tokio_util::sync::CancellationToken, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = cancel.cancelled() => return,
        };
        let Ok((mut here, _)) = accepted else { return };
        let Some(run) = run.upgrade() else { return };
        let to = to.clone();
        tokio::spawn(async move {
            let ctx = Ctx::new(run);
            let joined = async {
                let api: Api<Pod> = Api::namespaced(to.cluster.current_client(&ctx).await?, &to.ns);
                drop(ctx);
                let lost = |e: &dyn std::fmt::Display| {
                    OpError::unreachable("the port cannot be reached").because(e.to_string())
                };
                let mut forward = api.portforward(&to.pod, &[to.port]).await.map_err(|e| lost(&e))?;
                let mut there = forward.take_stream(to.port).ok_or_else(|| lost(&"no stream"))?;
                tokio::io::copy_bidirectional(&mut here, &mut there).await.map_err(|e| lost(&e))?;
                OpResult::Ok(())
            };
            if let Err(e) = joined.await {
                tracing::debug!("port forward to {}:{}: {e}", to.pod, to.port);
            }
        });
    }
}
