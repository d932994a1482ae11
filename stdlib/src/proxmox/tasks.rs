//! Tasks of the hypervisor as handles: what runs, what ran, and what it said.
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::op::Op;
use crate::options;

use super::request;
use super::types::Proxmox;

options! {
    /// Which tasks to list, newest first.
    pub struct ListTasks {
        /// Hypervisor node; default: all.
        node: Option<String> = None,
        /// Only tasks of this VM.
        vmid: Option<i64> = None,
        /// Only tasks of this type, for example `qmclone`.
        kind: Option<String> = None,
        /// Only tasks that failed.
        errors: bool = false,
        /// Only tasks that still run.
        running: bool = false,
        /// At most this many of each node.
        limit: i64 = 50,
    }
}

/// One task.
#[derive(Clone)]
pub struct Task {
    pve: Proxmox,
    row: Value,
}

impl Task {
    fn text(&self, key: &str) -> &str {
        self.row[key].as_str().unwrap_or_default()
    }
    /// Its id.
    #[must_use]
    pub fn upid(&self) -> &str {
        self.text("upid")
    }
    /// `qmclone`, `qmstart`, `vzdump` …
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("type")
    }
    /// What it works on: a VM id, a file name.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text("id")
    }
    /// Hypervisor node.
    #[must_use]
    pub fn pve_node(&self) -> &str {
        self.text("node")
    }
    /// Who started it, with the token.
    #[must_use]
    pub fn user(&self) -> String {
        match self.row["tokenid"].as_str() {
            Some(t) => format!("{}!{t}", self.text("user")),
            None => self.text("user").to_owned(),
        }
    }
    /// `running`, or how it ended, as it was when the list was read.
    #[must_use]
    pub fn status(&self) -> &str {
        match self.row["status"].as_str() {
            Some(s) if self.row["endtime"].is_number() => s,
            _ => "running",
        }
    }
    /// Start, in seconds since 1970.
    #[must_use]
    pub fn started(&self) -> i64 {
        self.row["starttime"].as_i64().unwrap_or_default()
    }

    /// Waits for its end and gives its warnings.
    ///
    /// # Errors
    /// `failed` with its last lines; `timeout` with its progress.
    pub async fn wait(&self, ctx: &Ctx, limit: Duration) -> OpResult<Vec<String>> {
        ctx.run_op(Op::read("proxmox", "wait", self.upid()), |s| async move {
            let what = format!("{} {}", self.kind(), self.id());
            self.pve.wait_task(&s, what.trim(), self.upid(), limit).await?;
            let log = self.pve.task_lines(ctx, self.upid()).await?;
            Ok(log.into_iter().filter(|l| l.starts_with("WARN")).collect())
        })
        .await
    }

    /// All lines of its log.
    ///
    /// # Errors
    /// What the request met.
    pub async fn log(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        ctx.run_op(Op::read("proxmox", "log", self.upid()), |_| self.pve.task_lines(ctx, self.upid())).await
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({} {} on {}: {})", self.kind(), self.id(), self.pve_node(), self.status())
    }
}

impl Proxmox {
    /// Tasks, newest first.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn tasks(&self, ctx: &Ctx, o: &ListTasks) -> OpResult<Vec<Task>> {
        ctx.run_op(Op::read("proxmox", "tasks", self.url()), |_| async {
            let nodes = match &o.node {
                Some(n) => vec![n.clone()],
                None => {
                    let all = self.send(ctx, &request::get("/nodes")).await?;
                    let up = all.as_array().into_iter().flatten().filter(|n| n["status"] == "online");
                    up.filter_map(|n| n["node"].as_str().map(str::to_owned)).collect()
                }
            };
            let mut out = Vec::new();
            for node in nodes {
                let source = if o.running { "active" } else { "all" };
                let mut r =
                    request::get(format!("/nodes/{node}/tasks")).query("source", source).query("limit", o.limit);
                if let Some(v) = o.vmid {
                    r = r.query("vmid", v);
                }
                if let Some(k) = &o.kind {
                    r = r.query("typefilter", k);
                }
                if o.errors {
                    r = r.query("errors", 1);
                }
                let rows = self.send_list(ctx, &r).await?;
                out.extend(rows.into_iter().map(|row| Task { pve: self.clone(), row }));
            }
            out.sort_by_key(|t| std::cmp::Reverse(t.started()));
            Ok(out)
        })
        .await
    }
}
