//! Running programs in containers over a websocket.
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Cluster;
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::core::units::Duration;
use crate::options;

options! {
    /// What to run in which container.
    pub struct ExecOptions {
        /// Namespace of the pod.
        namespace: String = String::new(),
        /// Container; the first one when left out.
        container: String = String::new(),
        /// Text for the program's standard input.
        stdin: String = String::new(),
        /// How long it may take.
        timeout: Duration = Duration::minutes(5),
        /// Exit codes that are no error.
        ok_codes: Vec<i64> = vec![0],
    }
}

/// What a program in a container left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecEnd {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i64,
}

impl Cluster {
    /// Runs a program in a container of a pod.
    ///
    /// # Errors
    /// `not_found` without the pod; `failed` for an exit code that is not among `ok_codes`; `timeout`.
    pub async fn exec_in(&self, ctx: &Ctx, pod: &str, argv: &[String], o: &ExecOptions) -> OpResult<ExecEnd> {
        let ns = if o.namespace.is_empty() { "default" } else { &o.namespace };
        let op = Op::run("kubernetes", "exec", format!("pod {ns}/{pod}")).args(&argv);
        if argv.is_empty() {
            return Err(OpError::invalid("nothing to run").hint("pass a list: `[\"nvidia-smi\", \"-L\"]`"));
        }
        ctx.run_op(op, |s| async move {
            let run = async {
                match s.ctx().clock.within(o.timeout.0, self.exec_now(s.ctx(), ns, pod, argv, o)).await {
                    Some(end) => end,
                    None => Err(OpError::timeout(format!("`{}` did not end within {}", argv[0], o.timeout))),
                }
            };
            let end = s.act(format!("pod {ns}/{pod}"), Vec::<Change>::new(), run).await?;
            if o.ok_codes.contains(&end.code) {
                return Ok(end);
            }
            let mut e = OpError::failed(format!("`{}` ended with exit code {}", argv[0], end.code));
            e.causes = crate::k3s::journal::last_lines(&format!("{}\n{}", end.stdout, end.stderr), 4);
            Err(e.hint("an exit code that is fine goes into `ok_codes`"))
        })
        .await
    }

    async fn exec_now(&self, ctx: &Ctx, ns: &str, pod: &str, argv: &[String], o: &ExecOptions) -> OpResult<ExecEnd> {
        // the answer to a websocket that is refused says little: the pod is looked at first
        let live = self.get_object(ctx, "pod", ns, pod).await?;
        let first = live["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
        let container = if o.container.is_empty() { first } else { &o.container };
        let params = AttachParams::default().container(container).stdin(!o.stdin.is_empty()).stdout(true).stderr(true);
        let api: Api<Pod> = Api::namespaced(self.current_client(ctx).await?, ns);
        let mut process = api.exec(pod, argv.to_vec(), &params).await.map_err(|e| {
            let why = super::pod_trouble(&live).unwrap_or_else(|| e.to_string());
            OpError::new(Kind::Failed, format!("nothing can be run in container `{container}`"))
                .because(why)
                .hint(format!("look at the pod: `cluster.explain_pending(\"{ns}\", \"{pod}\")`"))
        })?;
        ctx.edge();
        let status = process.take_status();
        let stdin = process.stdin();
        let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
        let feed = async {
            if let Some(mut w) = stdin {
                let _ = w.write_all(o.stdin.as_bytes()).await;
                let _ = w.shutdown().await;
            }
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read_out = async {
            if let Some(r) = &mut stdout {
                let _ = r.read_to_end(&mut out).await;
            }
        };
        let read_err = async {
            if let Some(r) = &mut stderr {
                let _ = r.read_to_end(&mut err).await;
            }
        };
        futures::join!(feed, read_out, read_err);
        let status = match status {
            Some(s) => s.await,
            None => None,
        };
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        let lost = || OpError::unreachable("the connection was lost while the program ran").hint("it may have run");
        let status = serde_json::to_value(status.ok_or_else(lost)?).unwrap_or_default();
        let code = match status["status"].as_str() {
            Some("Success") => 0,
            _ => status["details"]["causes"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["reason"] == "ExitCode")
                .and_then(|c| c["message"].as_str()?.parse().ok())
                .ok_or_else(|| {
                    OpError::failed(format!("`{}` cannot be started", argv[0]))
                        .because(status["message"].as_str().unwrap_or("no reason given"))
                })?,
        };
        Ok(ExecEnd { stdout: text(out), stderr: text(err), code })
    }
}
