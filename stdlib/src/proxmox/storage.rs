//! Storages as handles: what is on them, uploads, downloads by the hypervisor.
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::core::units::Size;
use crate::options;

use super::error::Fault;
use super::inventory::is_on;
use super::request::{self, Checksum};
use super::types::Proxmox;

options! {
    /// Which volumes to list.
    pub struct ListContent {
        /// Only this content type: `images`, `iso`, `import`, `backup`, `vztmpl`, `snippets`.
        content: Option<String> = None,
        /// Only volumes of this VM.
        vmid: Option<i64> = None,
    }
}

options! {
    /// What a file becomes on the storage.
    pub struct FileOptions {
        /// Content type: `iso`, `import` or `vztmpl`.
        content: String = "iso".to_owned(),
        /// File name there; default: `gpuhost-<site>-` and the file's own name, which cleanup knows.
        name: Option<String> = None,
        /// SHA-256 of the file, which Proxmox checks.
        sha256: Option<String> = None,
        /// SHA-512 of the file, which Proxmox checks and which goes before.
        sha512: Option<String> = None,
    }
}

const LIMIT: Duration = Duration::from_secs(2 * 3600);
const UPLOADS: u32 = 4;

/// A storage as a hypervisor node sees it.
#[derive(Clone)]
pub struct Storage {
    pub(super) pve: Proxmox,
    pub(super) node: String,
    row: Value,
}

fn bytes(v: &Value) -> Size {
    Size(v.as_u64().or_else(|| v.as_str()?.parse().ok()).unwrap_or_default())
}

impl Storage {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.row["storage"].as_str().unwrap_or_default()
    }
    /// `dir`, `zfspool`, `lvmthin`, `nfs` …
    #[must_use]
    pub fn kind(&self) -> &str {
        self.row["type"].as_str().unwrap_or_default()
    }
    /// The hypervisor node that was asked.
    #[must_use]
    pub fn pve_node(&self) -> &str {
        &self.node
    }
    /// Content types that it takes.
    #[must_use]
    pub fn content(&self) -> Vec<String> {
        let all = self.row["content"].as_str().unwrap_or_default();
        all.split(',').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect()
    }
    /// Whether all nodes see the same volumes.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        is_on(&self.row["shared"])
    }
    /// Whether it can be used now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.row["active"].is_null() || is_on(&self.row["active"])
    }
    /// Total, used and free bytes.
    #[must_use]
    pub fn space(&self) -> (Size, Size, Size) {
        (bytes(&self.row["total"]), bytes(&self.row["used"]), bytes(&self.row["avail"]))
    }

    /// The volumes on it.
    ///
    /// # Errors
    /// What the request met.
    pub async fn list_content(&self, ctx: &Ctx, o: &ListContent) -> OpResult<Value> {
        ctx.run_op(Op::read("proxmox", "list_content", self.name()), |_| async move {
            let mut r = request::get(format!("/nodes/{}/storage/{}/content", self.node, self.name()));
            if let Some(c) = &o.content {
                r = r.query("content", c);
            }
            if let Some(v) = o.vmid {
                r = r.query("vmid", v);
            }
            Ok(self.pve.send(ctx, &r).await?)
        })
        .await
    }

    fn file_name(&self, ctx: &Ctx, o: &FileOptions, source: &str) -> OpResult<String> {
        if !["iso", "import", "vztmpl"].contains(&o.content.as_str()) {
            return Err(OpError::invalid(format!("content `{}` cannot be sent through the API", o.content))
                .hint("content types for files: iso, import, vztmpl (snippets need a shell on the hypervisor)"));
        }
        if !self.content().contains(&o.content) {
            return Err(OpError::conflict(format!("storage {} does not take content type {}", self.name(), o.content))
                .hint(format!(
                    "allow it: `pvesm set {} --content {},{}`",
                    self.name(),
                    self.content().join(","),
                    o.content
                )));
        }
        if let Some(name) = &o.name {
            return Ok(name.clone());
        }
        let own = source.rsplit('/').next().unwrap_or(source).split(['?', '#']).next().unwrap_or(source);
        Ok(match &ctx.site {
            Some(site) => format!("gpuhost-{}-{own}", site.name),
            None => own.to_owned(),
        })
    }

    async fn volume(&self, ctx: &Ctx, content: &str, name: &str) -> OpResult<(String, Option<u64>)> {
        self.pve.volume(ctx, (&self.node, self.name()), content, name).await
    }

    /// Sends a local file to the storage; nothing when a file of this name and size is there. Gives its volume id.
    ///
    /// # Errors
    /// `conflict` when another file has the name; `denied` outside of granted paths.
    pub async fn upload(&self, ctx: &Ctx, path: &str, o: &FileOptions) -> OpResult<String> {
        let full = crate::flow::files::granted(ctx, path)?;
        let name = self.file_name(ctx, o, path)?;
        ctx.run_op(Op::write("proxmox", "upload", self.name()).args(&(&name, &o.content)), |s| async move {
            let data = std::fs::read(&full)
                .map_err(|e| OpError::not_found(format!("cannot read `{}`", full.display())).because(e.to_string()))?;
            let size = data.len() as u64;
            let (volid, have) = self.volume(ctx, &o.content, &name).await?;
            match have {
                Some(n) if n == size => return Ok(volid),
                Some(n) => {
                    return Err(OpError::conflict(format!(
                        "{volid} is another file ({} there, {} here)",
                        Size(n),
                        Size(size)
                    ))
                    .hint("give this one another `name`, or remove that one in Proxmox"));
                }
                None => {}
            }
            let change = Change::new(self.name(), "volume", None, Some(volid.clone().into()));
            s.act(&volid, vec![change], async {
                self.pve.put_file(&s, (&self.node, self.name()), &o.content, &name, data).await
            })
            .await?;
            Ok(volid)
        })
        .await
    }

    /// Lets the hypervisor download a file; nothing when it is there. Gives its volume id.
    ///
    /// # Errors
    /// `failed` when it cannot be fetched or its checksum differs.
    pub async fn download_url(&self, ctx: &Ctx, url: &str, o: &FileOptions) -> OpResult<String> {
        let name = self.file_name(ctx, o, url)?;
        ctx.run_op(Op::write("proxmox", "download_url", self.name()).args(&(&name, url)), |s| async move {
            let (volid, have) = self.volume(ctx, &o.content, &name).await?;
            if have.is_some() {
                return Ok(volid);
            }
            let change = Change::new(self.name(), "volume", None, Some(volid.clone().into()));
            s.act(&volid, vec![change], async {
                let sum = Checksum::of(o.sha256.as_deref(), o.sha512.as_deref());
                let r = request::download_url(&self.node, self.name(), &o.content, &name, url, sum);
                let done = self.pve.change(&s, "the download", &r, LIMIT).await;
                if done.is_err() && self.volume(ctx, &o.content, &name).await?.1.is_some() { Ok(()) } else { done }
            })
            .await?;
            Ok(volid)
        })
        .await
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({} on {})", self.name(), self.node)
    }
}

impl Proxmox {
    /// The volume of that content and name on a node's storage, with its size when it is there.
    async fn volume(&self, ctx: &Ctx, on: (&str, &str), content: &str, name: &str) -> OpResult<(String, Option<u64>)> {
        let volid = format!("{}:{content}/{name}", on.1);
        let list = self.send(ctx, &request::storage_content(on.0, on.1, content)).await?;
        let row = list.as_array().into_iter().flatten().find(|v| v["volid"] == volid.as_str());
        Ok((volid, row.map(|v| bytes(&v["size"]).0)))
    }

    /// Sends a file to a node's storage and waits until it is there. A file that replaces itself is
    /// harmless, so a lost answer is repeated after a look.
    pub(super) async fn put_file(
        &self,
        s: &OpScope,
        on: (&str, &str),
        content: &str,
        name: &str,
        data: Vec<u8>,
    ) -> OpResult<()> {
        let size = data.len() as u64;
        for left in (0..UPLOADS).rev() {
            let e = match self.upload(s.ctx(), on.0, on.1, content, name, data.clone()).await {
                Ok(upid) => return self.wait_task(s, "the upload", &upid, LIMIT).await,
                Err(e) => e,
            };
            if left == 0 || !e.is(&Fault::Unreachable) {
                return Err(e.into());
            }
            s.waiting(format!("the upload: {e}"));
            s.sleep(Duration::from_secs(3)).await?;
            if self.volume(s.ctx(), on, content, name).await?.1 == Some(size) {
                return Ok(());
            }
        }
        Err(OpError::failed(format!("the upload was tried {UPLOADS} times")))
    }

    /// The storages that `node` sees.
    ///
    /// # Errors
    /// What the request met.
    pub async fn storages(&self, ctx: &Ctx, node: &str) -> OpResult<Vec<Storage>> {
        ctx.run_op(Op::read("proxmox", "list_storage", node), |_| async {
            let rows = self.send_list(ctx, &request::get(format!("/nodes/{node}/storage"))).await?;
            let mut all: Vec<Storage> =
                rows.into_iter().map(|row| Storage { pve: self.clone(), node: node.to_owned(), row }).collect();
            all.sort_by(|a, b| a.name().cmp(b.name()));
            Ok(all)
        })
        .await
    }

    /// One storage by name.
    ///
    /// # Errors
    /// `not_found` naming those that there are.
    pub async fn storage(&self, ctx: &Ctx, node: &str, name: &str) -> OpResult<Storage> {
        let all = self.storages(ctx, node).await?;
        let names: Vec<String> = all.iter().map(|s| s.name().to_owned()).collect();
        all.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            OpError::not_found(format!("{node} has no storage `{name}` that this token sees"))
                .on(name)
                .hint(format!("there are: {}", names.join(", ")))
        })
    }
}
