//! The world as it is before anyone deploys, made from a spec.
use std::collections::{BTreeMap, BTreeSet};

use super::state::{Access, Acl, File, Pve, Running, Storage, Token, User, Vm};
use crate::spec::{ForeignVm, Spec};
use crate::tls;
use crate::volume::{Content, Volume};
use crate::world::World;

/// Role of the operator's token in a new lab: what a deploy, its verification and its cleanup need.
pub const OPERATOR_ROLE: &str = "GpuhostOperator";

const OPERATOR: &str = "VM.Allocate VM.Audit VM.Clone VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit \
    VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network VM.Config.Options VM.Console VM.PowerMgmt \
    VM.Snapshot VM.Snapshot.Rollback Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Pool.Allocate \
    Pool.Audit SDN.Use SDN.Audit Mapping.Audit Mapping.Modify Mapping.Use Sys.Audit Sys.AccessNetwork";

/// When labs are born: a fixed instant, so that runs compare.
const BIRTH_MS: u64 = 1_795_339_800_000;

impl World {
    /// The world that `spec` describes.
    ///
    /// # Errors
    /// When keys cannot be made or the spec contradicts itself.
    pub fn new(spec: &Spec) -> Result<World, String> {
        let mut w = World {
            version: 1,
            seed: spec.seed,
            now_ms: BIRTH_MS,
            draws: 0,
            queue: BTreeMap::new(),
            seq: 0,
            pve: Pve::default(),
            volumes: BTreeMap::new(),
            guests: BTreeMap::new(),
            k3s: BTreeMap::new(),
            clusters: BTreeMap::new(),
            cards: BTreeMap::new(),
            remotes: BTreeMap::new(),
            pushed: BTreeSet::new(),
            lan: crate::lan::Lan::default(),
            pulls_limited: false,
            not_rehearsed: BTreeSet::new(),
            met: BTreeSet::new(),
            snapshots_ms: 0,
            dirty_alarm: false,
        };
        w.pve = Pve {
            name: spec.name.clone(),
            version: spec.pve_version.clone(),
            api_addr: spec.api_addr.clone(),
            ticket_key: w.uuid(),
            nodes: spec.nodes.iter().map(|n| (n.name.clone(), n.clone())).collect(),
            downloads: spec.downloads.clone(),
            last_pid: 4000,
            booted_ms: BIRTH_MS - 9 * 86_400_000,
            ..Pve::default()
        };
        for s in &spec.storages {
            let storage = Storage {
                kind: s.kind.clone(),
                content: s.content.clone(),
                size: s.size_gib << 30,
                shared: s.shared || s.kind == "nfs",
                disabled: false,
                extra: BTreeMap::new(),
            };
            w.pve.storages.insert(s.id.clone(), storage);
        }
        certificates(&mut w, spec).map_err(|e| e.to_string())?;
        people(&mut w, spec)?;
        for vm in &spec.foreign_vms {
            foreign_vm(&mut w, vm)?;
        }
        Ok(w)
    }

    /// The secret of an API token `user@realm!name`, if there is such a token.
    #[must_use]
    pub fn token_secret(&self, id: &str) -> Option<String> {
        let (user, token) = id.split_once('!')?;
        Some(self.pve.access.users.get(user)?.tokens.get(token)?.secret.clone())
    }
}

fn certificates(w: &mut World, spec: &Spec) -> std::io::Result<()> {
    w.pve.ca = tls::make_ca("Proxmox Virtual Environment")?;
    let host = spec.api_addr.rsplit_once(':').map_or(spec.api_addr.as_str(), |(h, _)| h);
    let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), host.to_owned()];
    for n in &spec.nodes {
        names.push(n.name.clone());
        names.push(format!("{}.lab.example", n.name));
    }
    names.dedup();
    let cn = spec.nodes.first().map_or("pve", |n| n.name.as_str()).to_owned();
    w.pve.leaf = tls::make_leaf(&w.pve.ca, &format!("{cn}.lab.example"), None, &names)?;
    Ok(())
}

fn people(w: &mut World, spec: &Spec) -> Result<(), String> {
    let (user, token) = spec
        .token_id
        .split_once('!')
        .ok_or_else(|| format!("token_id `{}` is not `user@realm!name`", spec.token_id))?;
    let secret = if spec.token_secret.is_empty() { w.uuid() } else { spec.token_secret.clone() };
    let root_password = if spec.root_password.is_empty() { w.uuid() } else { spec.root_password.clone() };
    let password = w.uuid();
    let mut access = Access::default();
    access.users.insert("root@pam".into(), User { password: root_password, enable: true, ..User::default() });
    let holder = access.users.entry(user.to_owned()).or_insert(User { password, enable: true, ..User::default() });
    holder.tokens.insert(token.to_owned(), Token { secret, privsep: true, ..Token::default() });
    let mut privs: BTreeSet<String> = OPERATOR.split_ascii_whitespace().map(str::to_owned).collect();
    if w.pve.version.starts_with('8') {
        privs.insert("VM.Monitor".into());
    } else {
        let agent = ["Audit", "FileRead", "FileWrite", "Unrestricted"];
        privs.extend(agent.map(|p| format!("VM.GuestAgent.{p}")));
    }
    access.roles.insert(OPERATOR_ROLE.into(), privs);
    for (kind, who) in [("user", user), ("token", spec.token_id.as_str())] {
        access.acl.push(Acl {
            path: "/".into(),
            kind: kind.into(),
            who: who.into(),
            role: OPERATOR_ROLE.into(),
            propagate: true,
        });
    }
    w.pve.access = access;
    Ok(())
}

fn foreign_vm(w: &mut World, f: &ForeignVm) -> Result<(), String> {
    let storage = w.pve.storages.get(&f.storage).ok_or_else(|| format!("no storage `{}` in the lab", f.storage))?;
    let dir = storage.is_dir();
    let name = if dir { format!("{0}/vm-{0}-disk-0.qcow2", f.vmid) } else { format!("vm-{}-disk-0", f.vmid) };
    let volid = format!("{}:{name}", f.storage);
    let size = f.disk_gib << 30;
    let mut conf: BTreeMap<String, String> = BTreeMap::new();
    let mac = super::qemu::new_mac(w);
    for (k, v) in [
        ("name", f.name.clone()),
        ("cores", "2".into()),
        ("memory", "4096".into()),
        ("ostype", "l26".into()),
        ("scsihw", "virtio-scsi-single".into()),
        ("scsi0", format!("{volid},size={}G", f.disk_gib)),
        ("net0", format!("virtio={mac},bridge=vmbr0")),
        ("boot", "order=scsi0".into()),
        ("smbios1", format!("uuid={}", w.uuid())),
        ("vmgenid", w.uuid()),
        ("meta", format!("creation-qemu=10.1.2,ctime={}", w.now_ms / 1000 - 400_000)),
    ] {
        conf.insert(k.into(), v);
    }
    if !f.description.is_empty() {
        conf.insert("description".into(), f.description.clone());
    }
    w.pve.last_pid += 7;
    let run = f.running.then(|| Running {
        since_ms: w.now_ms - 3 * 86_400_000,
        pid: w.pve.last_pid,
        paused: false,
        cards: Vec::new(),
    });
    let file = File {
        node: if w.pve.storages[&f.storage].shared { String::new() } else { f.node.clone() },
        vmid: f.vmid,
        format: if dir { "qcow2" } else { "raw" }.into(),
        content: "images".into(),
        used: if dir { size / 4 } else { size },
        ctime: w.now_ms / 1000 - 400_000,
        base: None,
        notes: None,
        protected: false,
    };
    w.pve.files.insert(volid.clone(), file);
    // Nobody may look inside: it never runs as a guest of the lab.
    w.volumes.insert(volid, Volume::new(size, Content::Blank));
    w.pve.vms.insert(f.vmid, Vm { node: f.node.clone(), conf, run, ..Vm::default() });
    Ok(())
}
