//! The template: made from a cloud image with API calls alone, or an existing one.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Look, Op, OpScope};
use crate::options;
use crate::site::Site;
use crate::wire::pve::marker::{self, Marker, Ownership};

use super::ensure_vm::CONFIG;
use super::error::Fault;
use super::inventory::{Machine, Place, not_ours};
use super::request::{self, At, Checksum};
use super::seed::{self, Seed};
use super::types::{Proxmox, Template, Vm};
use super::wanted::{AGENT, nic};

options! {
    /// The template: the `[template]` section of the site file.
    pub struct TemplateOptions {
        /// Name of the template VM.
        name: String,
        /// Its id.
        vmid: i64,
        /// Hypervisor node it lives on; default: the site's.
        pve_node: Option<String> = None,
        /// Use the template as it is; nothing below applies.
        existing: bool = false,
        /// Cloud image.
        image_url: Option<String> = None,
        /// Its SHA-256.
        image_sha256: Option<String> = None,
        /// Its SHA-512, which goes before.
        image_sha512: Option<String> = None,
        /// Packages built into the template.
        packages: Vec<String> = Vec::new(),
        /// Ids of its copies on other hypervisor nodes, by node.
        vmids: BTreeMap<String, String> = BTreeMap::new(),
    }
}

/// Marker kind of templates.
pub(super) const KIND: &str = "template";
const DOWNLOAD: Duration = Duration::from_secs(3600);
const BUILD: Duration = Duration::from_secs(1800);

/// One build.
struct Build<'a> {
    pve: &'a Proxmox,
    s: &'a OpScope,
    site: &'a Site,
    o: &'a TemplateOptions,
    /// Name of this copy.
    name: &'a str,
    at: At,
    marker: Marker,
}

impl TemplateOptions {
    /// The `[template]` section of a loaded site file.
    #[must_use]
    pub fn of_site(site: &Site) -> Self {
        let t = site.template.clone();
        TemplateOptions {
            name: t.name,
            vmid: i64::from(t.vmid),
            pve_node: t.pve_node,
            existing: t.existing,
            image_url: t.image_url,
            image_sha256: t.image_sha256,
            image_sha512: t.image_sha512,
            packages: t.packages,
            vmids: t.vmids.into_iter().map(|(k, v)| (k, v.to_string())).collect(),
        }
    }

    fn checksum(&self) -> Option<Checksum<'_>> {
        Checksum::of(self.image_sha256.as_deref(), self.image_sha512.as_deref())
    }

    fn at(&self, site: &Site) -> OpResult<At> {
        let vmid = u32::try_from(self.vmid).ok().filter(|v| *v >= 100);
        let vmid = vmid.ok_or_else(|| OpError::invalid(format!("`{}` is not a VM id", self.vmid)))?;
        Ok(At::new(self.pve_node.clone().unwrap_or_else(|| site.proxmox.pve_node.clone()), vmid))
    }
}

/// Where the template and its copies are: one for each hypervisor node that machines are on. The id of a
/// copy is the site file's `template.vmids`, or follows the template's own.
#[must_use]
pub fn places(site: &Site) -> Vec<(String, At)> {
    let t = &site.template;
    let home = t.pve_node.as_ref().unwrap_or(&site.proxmox.pve_node);
    let others: BTreeSet<&String> = site.nodes.iter().map(|n| &n.pve_node).filter(|n| *n != home).collect();
    let mut out = vec![(t.name.clone(), At::new(home, t.vmid))];
    for (i, node) in (1..).zip(others) {
        let vmid = t.vmids.get(node).copied().or((!t.existing).then_some(t.vmid + i));
        out.extend(vmid.map(|v| (format!("{}-{node}", t.name), At::new(node, v))));
    }
    out
}

/// File name of the image on the hypervisor's storage: ours, and different for each content.
fn image_file(site: &Site, url: &str, sum: Option<Checksum<'_>>) -> String {
    let base = url.rsplit('/').next().unwrap_or("image").split(['?', '#']).next().unwrap_or("image");
    let stem = base.rsplit_once('.').map_or(base, |(s, _)| s);
    let clean: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect();
    let sum = sum.map(|s| format!("-{}", &s.hex[..s.hex.len().min(8)])).unwrap_or_default();
    format!("gpuhost-{}-{clean}{sum}.qcow2", site.name)
}

fn seed_file(site: &Site, vmid: u32) -> String {
    format!("gpuhost-{}-seed-{vmid}.iso", site.name)
}

impl Proxmox {
    /// Makes the template exist: downloads the image, installs the packages in a build VM, converts it.
    ///
    /// # Errors
    /// `denied` (exit 4) when something else stands at its id; whatever a step met.
    pub async fn ensure_template(&self, ctx: &Ctx, o: &TemplateOptions) -> OpResult<Template> {
        let site = ctx.site()?;
        let at = o.at(&site)?;
        if o.existing {
            return self.existing_template(ctx, o, &at).await;
        }
        self.ensure_pool(ctx).await?;
        let mut template = self.ensure_one(ctx, &site, o, &o.name, at).await?;
        for (name, at) in self.copies(ctx, &site, &template.at).await? {
            let copy = self.ensure_one(ctx, &site, o, &name, at).await?;
            template.copies.insert(copy.at.node.clone(), copy.at);
        }
        Ok(template)
    }

    /// The copies that local storage makes necessary.
    async fn copies(&self, ctx: &Ctx, site: &Site, home: &At) -> OpResult<Vec<(String, At)>> {
        let all: Vec<_> = places(site).into_iter().filter(|(_, at)| at.node != home.node).collect();
        if all.is_empty() {
            return Ok(all);
        }
        let list = self.send(ctx, &request::get(format!("/nodes/{}/storage", home.node))).await?;
        let row = list.as_array().into_iter().flatten().find(|s| s["storage"] == site.proxmox.storage.as_str());
        let shared = row.is_some_and(|s| super::inventory::is_on(&s["shared"]));
        Ok(if shared { Vec::new() } else { all })
    }

    async fn ensure_one(&self, ctx: &Ctx, site: &Site, o: &TemplateOptions, name: &str, at: At) -> OpResult<Template> {
        let identity = (name, at.vmid, &o.image_url, o.checksum().map(|c| c.hex), &o.packages);
        let op = Op::write("proxmox", "ensure_template", name).class(Class::Adoptable).args(&identity);
        ctx.run_op(op, |s| async move {
            let half_made = match self.settled_place(&s, at.vmid, &at.node).await? {
                Place::Free => None,
                Place::Hidden => return Err(not_ours(&marker::hidden(at.vmid), "make the template there")),
                Place::Taken(m) => {
                    let v = m.judge(site, Some(name), Some(&at.node));
                    if v.ownership != Ownership::Own {
                        return Err(not_ours(&v, "make the template there"));
                    }
                    if m.is_template() {
                        report_age(ctx, o, &m);
                        return Ok(Template::new(m.at.clone(), m.name()));
                    }
                    Some(*m)
                }
            };
            let id = uuid::Uuid::new_v4().simple().to_string();
            if half_made.is_none() {
                self.nobody_in_doubt(ctx, at.vmid).await?;
            }
            let mut marker = Marker::new(&site.uuid, name, at.vmid, &id[..12]);
            marker.kind = Some(KIND.to_owned());
            let b = Build { pve: self, s: &s, site, o, name, at: at.clone(), marker };
            let what = format!("VM {} on {}", at.vmid, at.node);
            let change = Change::new(name, "template", None, Some(what.into()));
            s.act(b.marker.line(), vec![change], b.run(half_made)).await?;
            Ok(Template::new(at, name))
        })
        .await
    }

    async fn existing_template(&self, ctx: &Ctx, o: &TemplateOptions, at: &At) -> OpResult<Template> {
        ctx.run_op(Op::read("proxmox", "ensure_template", &o.name), |_| async {
            let mut template = self.look_at_existing(ctx, at).await?;
            for (node, vmid) in &o.vmids {
                let vmid = vmid.parse().map_err(|_| OpError::invalid(format!("`{vmid}` is not a VM id")))?;
                let copy = self.look_at_existing(ctx, &At::new(node, vmid)).await?;
                template.copies.insert(node.clone(), copy.at);
            }
            Ok(template)
        })
        .await
    }

    async fn look_at_existing(&self, ctx: &Ctx, at: &At) -> OpResult<Template> {
        let m = self.machine(ctx, at.vmid, &at.node).await?;
        if !m.is_template() {
            return Err(OpError::invalid(format!("VM {} `{}` is not a template", at.vmid, m.name()))
                .hint(format!("convert it with `qm template {}`, or leave `existing` out", at.vmid)));
        }
        for lack in lacks(&m) {
            ctx.message("warn", format!("template {}: {lack}", m.name()));
        }
        Ok(Template::new(m.at.clone(), m.name()))
    }

    /// Removes the site's template with its image and seed; an existing one of somebody else's stays.
    ///
    /// # Errors
    /// `denied` (exit 4) when what stands at its id is not the site's own.
    pub async fn remove_template(&self, ctx: &Ctx, o: &TemplateOptions) -> OpResult<bool> {
        if o.existing {
            return Ok(false);
        }
        let site = ctx.site()?;
        let at = o.at(&site)?;
        let mut removed = self.remove_one_template(ctx, &site, &o.name, &at, true).await?;
        for (name, at) in places(&site).into_iter().filter(|(_, other)| other.node != at.node) {
            removed |= self.remove_one_template(ctx, &site, &name, &at, false).await?;
        }
        let images = self.remove_content(ctx).await?;
        Ok(removed || images > 0)
    }

    /// Removes one template of ours. Somebody else's at the id of a copy is nothing to stop at: the copy
    /// was perhaps never made.
    async fn remove_one_template(&self, ctx: &Ctx, site: &Site, name: &str, at: &At, strict: bool) -> OpResult<bool> {
        ctx.run_op(Op::destroy("proxmox", "remove_template", name), |s| async move {
            let m = match self.settled_place(&s, at.vmid, &at.node).await? {
                Place::Free => return Ok(false),
                Place::Hidden if !strict => return Ok(false),
                Place::Hidden => return Err(not_ours(&marker::hidden(at.vmid), "remove it")),
                Place::Taken(m) => *m,
            };
            let v = m.judge(site, None, None);
            if v.ownership != Ownership::Own {
                return if strict { Err(not_ours(&v, "remove it")) } else { Ok(false) };
            }
            let vm = self.handle(ctx, &m);
            let change = Change::new(name, "template", Some(format!("VM {}", at.vmid).into()), None);
            s.act(format!("vm {}", at.vmid), vec![change], async {
                vm.bring_down(&s).await?;
                vm.destroy(&s).await
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Removes the site's images and ISOs (`gpuhost-<site>-*`) from the image storage; says how many.
    ///
    /// # Errors
    /// `denied` when the user declines.
    pub async fn remove_content(&self, ctx: &Ctx) -> OpResult<i64> {
        let site = ctx.site()?;
        let storage = self.section().image_storage.clone();
        ctx.run_op(Op::destroy("proxmox", "remove_content", &storage), |s| async move {
            // Two sites of one name: whose the files are, the pool says.
            self.check_pool(ctx, &site).await?;
            let mut found: BTreeMap<String, String> = BTreeMap::new();
            for (_, at) in places(&site) {
                for content in ["import", "iso"] {
                    let volumes = self.site_volumes(ctx, &site, &at.node, &storage, content).await?;
                    found.extend(volumes.into_iter().map(|v| (format!("{} on {}", v, at.node), at.node.clone())));
                }
            }
            if found.is_empty() {
                return Ok(0);
            }
            let shown: Vec<&str> = found.keys().map(String::as_str).collect();
            let changes = shown.iter().map(|v| Change::new(&storage, "volume", Some((*v).into()), None)).collect();
            s.act(shown.join(" "), changes, async {
                for (what, node) in &found {
                    let volume = what.split(" on ").next().unwrap_or_default();
                    let r = request::remove_volume(node, &storage, volume);
                    match self.change(&s, "removing a volume", &r, CONFIG).await {
                        // A shared storage shows the same volume on every node.
                        Err(e) if e.is(crate::core::error::Kind::NotFound) => {}
                        other => other?,
                    }
                }
                Ok(())
            })
            .await?;
            Ok(found.len() as i64)
        })
        .await
    }

    async fn site_volumes(
        &self,
        ctx: &Ctx,
        site: &Site,
        node: &str,
        storage: &str,
        content: &str,
    ) -> OpResult<Vec<String>> {
        let all = match self.send_list(ctx, &request::storage_content(node, storage, content)).await {
            Ok(l) => l,
            Err(e) if matches!(e.fault, Fault::Invalid | Fault::NotFound) || e.text.contains("does not support") => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(e.into()),
        };
        let named: Vec<&str> = all.iter().filter_map(|v| v["volid"].as_str()).collect();
        let ours = format!("/{}-", site.pool());
        if !named.iter().any(|v| v.contains(&ours)) {
            return Ok(Vec::new());
        }
        let others = self.longer_names(ctx, site).await?;
        let mine = |v: &&&str| v.contains(&ours) && !others.iter().any(|o| v.contains(&format!("/{o}-")));
        Ok(named.iter().filter(mine).map(|v| (*v).to_owned()).collect())
    }

    /// Pools of sites whose name begins with ours: the files of site `lab-2` look like those of `lab`.
    async fn longer_names(&self, ctx: &Ctx, site: &Site) -> OpResult<Vec<String>> {
        let pools = self.send(ctx, &request::get("/pools")).await?;
        let names = pools.as_array().into_iter().flatten().filter_map(|p| p["poolid"].as_str());
        let begins = format!("{}-", site.pool());
        Ok(names.filter(|n| n.starts_with(&begins)).map(str::to_owned).collect())
    }
}

/// What a template should have and this one has not.
fn lacks(m: &Machine) -> Vec<&'static str> {
    let mut out = Vec::new();
    let has = |what: &str| m.config.values().any(|v| v.as_str().is_some_and(|t| t.contains(what)));
    if !has("cloudinit") {
        out.push("it has no cloud-init drive: clones will not get their address and keys");
    }
    if m.get("agent").is_none_or(|a| a.starts_with('0') || a.contains("enabled=0")) {
        out.push("the guest agent is not switched on");
    }
    if m.get("scsi0").is_none() {
        out.push("its system disk is not scsi0: machines cannot be sized");
    }
    if m.get("bios").is_some_and(|b| b == "ovmf") && m.get("efidisk0").is_none() {
        out.push("it boots by UEFI and has no EFI disk (efidisk0): what the firmware stores is lost at every stop");
    }
    if m.get("boot").is_some_and(|b| b.contains("order=") && !b.contains("scsi0")) {
        out.push("its boot order does not name scsi0: clones will not find their system");
    }
    out
}

fn notes(o: &TemplateOptions) -> String {
    // A description loses blanks at its end: an empty list has a sign of its own.
    let packages = if o.packages.is_empty() { "-".to_owned() } else { o.packages.join(", ") };
    format!("Template of gpuhost.\nimage: {}\npackages: {packages}", o.image_url.as_deref().unwrap_or(""))
}

/// Says when the template was made from something else than the site file names now.
fn report_age(ctx: &Ctx, o: &TemplateOptions, m: &Machine) {
    let found = m.get("description").unwrap_or_default();
    if !found.contains(&notes(o)) {
        ctx.message(
            "warn",
            format!(
                "{}: the template was made from another image or package list than the site file names; \
                 `pve.remove_template(site().template)` and the next deploy make it anew",
                o.name
            ),
        );
    }
}

impl Build<'_> {
    fn ctx(&self) -> &Ctx {
        self.s.ctx()
    }

    fn images(&self) -> &str {
        &self.pve.section().image_storage
    }

    async fn run(&self, half_made: Option<Machine>) -> OpResult<()> {
        if let Some(m) = half_made {
            self.clear(&m).await?;
        }
        let image = self.image().await?;
        let mac = crate::site::derived_mac(&self.site.uuid, self.at.vmid);
        let seed = self.upload_seed(&mac).await?;
        self.create(&image, &seed, &mac).await?;
        self.build().await?;
        self.convert(&seed).await
    }

    /// Takes away what is left of a build that broke off: ours, and never used.
    async fn clear(&self, m: &Machine) -> OpResult<()> {
        let ctx = self.ctx();
        if self.pve.wait_unlocked(self.s, "the end of an earlier build step", &m.at).await?.is_none() {
            return Ok(());
        }
        let vm = self.pve.handle(ctx, m);
        if vm.is_running(ctx).await? {
            self.pve.change(self.s, "stopping the earlier build", &request::stop(&m.at), CONFIG).await?;
        }
        vm.destroy(self.s).await
    }

    /// Volume id of the cloud image; downloaded by the hypervisor when it is not there.
    async fn image(&self) -> OpResult<String> {
        let url = self.o.image_url.as_deref().ok_or_else(|| {
            OpError::invalid("the template has no image").hint("set `image_url` under [template], or `existing = true`")
        })?;
        let sum = self.o.checksum();
        let file = image_file(self.site, url, sum);
        let volid = format!("{}:import/{file}", self.images());
        let there = self.pve.site_volumes(self.ctx(), self.site, &self.at.node, self.images(), "import").await?;
        if there.contains(&volid) {
            return Ok(volid);
        }
        let r = request::download_url(&self.at.node, self.images(), "import", &file, url, sum);
        let done = self.pve.change(self.s, "downloading the image", &r, DOWNLOAD).await;
        if done.is_err() {
            // A download that an earlier run began may have ended meanwhile.
            let there = self.pve.site_volumes(self.ctx(), self.site, &self.at.node, self.images(), "import").await;
            if there.is_ok_and(|t| t.contains(&volid)) {
                return Ok(volid);
            }
        }
        done.map_err(|e| {
            if e.causes.iter().any(|c| c.contains("import")) && e.hint.is_none() {
                let storage = self.images();
                return e.hint(format!(
                    "allow content type `import` on {storage}: `pvesm set {storage} --content iso,vztmpl,import` (keep what it has)"
                ));
            }
            e
        })?;
        Ok(volid)
    }

    /// An address for the build: that of a node which does not exist yet, so that no DHCP is needed.
    async fn address(&self) -> OpResult<String> {
        let rows = self.pve.rows(self.ctx()).await?;
        let free = self.site.nodes.iter().find(|n| !rows.iter().any(|r| r.at.vmid == n.vmid));
        let node = free.ok_or_else(|| {
            OpError::conflict("every address of the site is in use, the template build needs one")
                .hint("set `existing = true` under [template], or remove one machine first")
        })?;
        Ok(format!("{}/{}", node.ip, self.site.prefix_len()))
    }

    async fn upload_seed(&self, mac: &str) -> OpResult<String> {
        let address = self.address().await?;
        let instance = format!("{}-{}", self.name, self.marker.id);
        let mut packages = self.o.packages.clone();
        if !packages.iter().any(|p| p == "qemu-guest-agent") {
            packages.insert(0, "qemu-guest-agent".to_owned());
        }
        let net = &self.site.network;
        let image = seed::image(&Seed {
            name: self.name,
            instance: &instance,
            mac,
            address: &address,
            gateway: &net.gateway,
            dns: &net.dns,
            packages: &packages,
        });
        let file = seed_file(self.site, self.at.vmid);
        self.pve.put_file(self.s, (&self.at.node, self.images()), "iso", &file, image).await?;
        Ok(format!("{}:iso/{file}", self.images()))
    }

    async fn create(&self, image: &str, seed: &str, mac: &str) -> OpResult<()> {
        let storage = &self.pve.section().storage;
        let Value::Object(config) = json!({
            "vmid": self.at.vmid, "name": self.name, "pool": self.site.pool(),
            "description": self.marker.put_into(&notes(self.o)), "tags": "gpuhost;template",
            "memory": 2048, "cores": 2, "cpu": "host", "ostype": "l26",
            "machine": "q35", "bios": "ovmf", "efidisk0": format!("{storage}:1,efitype=4m,pre-enrolled-keys=0"),
            "scsihw": "virtio-scsi-single",
            "scsi0": format!("{storage}:0,import-from={image},discard=on,iothread=1,ssd=1"),
            "ide3": format!("{seed},media=cdrom"), "boot": "order=scsi0",
            "net0": nic(self.site, mac), "agent": AGENT, "serial0": "socket", "vga": "serial0",
        }) else {
            return Err(OpError::failed("the template's config is no object"));
        };
        self.pve.change(self.s, "importing the image", &request::create(&self.at.node, config), DOWNLOAD).await
    }

    /// Starts the build VM and waits until it has powered itself off.
    async fn build(&self) -> OpResult<()> {
        let ctx = self.ctx();
        self.pve.change(self.s, "starting the build", &request::start(&self.at, None), CONFIG).await?;
        let every = Duration::from_secs(5);
        let done = self
            .s
            .wait_for("the template build", every, BUILD, || async {
                let v = self.pve.send(ctx, &request::status(&self.at)).await?;
                if v["status"] == "stopped" {
                    return Ok(Look::Ready(()));
                }

                let agent = self.pve.send(ctx, &request::agent_ping(&self.at)).await.is_ok();
                let seen = if agent { "packages are installed" } else { "installing packages" };
                Ok(Look::Pending(seen.to_owned()))
            })
            .await;
        done.map_err(|e| {
            let id = self.at.vmid;
            e.hint(format!(
                "look at its console (`qm terminal {id}`): is there a way out to the package mirror? The next run builds it anew"
            ))
        })
    }

    /// Takes the seed away, gives it a cloud-init drive, completes the marker, converts it.
    async fn convert(&self, seed: &str) -> OpResult<()> {
        let m = self.pve.machine(self.ctx(), self.at.vmid, &self.at.node).await?;
        let marker = Marker { smbios: m.smbios(), ..self.marker.clone() };
        let mut set = Map::new();
        set.insert("description".to_owned(), marker.put_into(&notes(self.o)).into());
        let r = request::put_config(&self.at, set, &["ide3".to_owned()], m.digest().as_deref());
        self.pve.change(self.s, "detaching the seed", &r, CONFIG).await?;
        let r = request::remove_volume(&self.at.node, self.images(), seed);
        self.pve.change(self.s, "removing the seed", &r, CONFIG).await?;
        let mut drive = Map::new();
        drive.insert("ide2".to_owned(), format!("{}:cloudinit", self.pve.section().storage).into());
        self.pve.change(self.s, "the cloud-init drive", &request::post_config(&self.at, drive, None), CONFIG).await?;
        self.pve.change(self.s, "converting to a template", &request::to_template(&self.at), CONFIG).await
    }
}

impl Vm {
    /// Whether this is the site's template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.kind == KIND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_files_are_ours_and_differ_by_content() {
        let text = include_str!("../../../recipes/site.toml");
        let site = crate::site::load(std::path::Path::new("site.toml"), text).unwrap();
        let url = "https://x/debian-12-genericcloud-amd64.qcow2?a=1";
        assert_eq!(image_file(&site, url, None), "gpuhost-homelab-debian-12-genericcloud-amd64.qcow2");
        assert_eq!(
            image_file(&site, "https://x/noble.img", Checksum::of(Some("0123456789abcdef"), None)),
            "gpuhost-homelab-noble-01234567.qcow2"
        );
    }
}
