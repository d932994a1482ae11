//! Roles, privileges and who has which on what path.
use std::collections::{BTreeMap, BTreeSet};

use super::reply::ApiError;
use super::state::{Access, Pve};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// `user@realm`.
    pub user: String,
    /// Token name.
    pub token: Option<String>,
}

impl Who {
    /// `user@realm[!token]`.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.token {
            Some(t) => format!("{}!{t}", self.user),
            None => self.user.clone(),
        }
    }
    /// root@pam with a ticket: a token is never root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.user == "root@pam" && self.token.is_none()
    }
}

const COMMON: &str = "Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit \
    Group.Allocate Mapping.Audit Mapping.Modify Mapping.Use Permissions.Modify Pool.Allocate Pool.Audit \
    Realm.Allocate Realm.AllocateUser SDN.Allocate SDN.Audit SDN.Use Sys.AccessNetwork Sys.Audit Sys.Console \
    Sys.Incoming Sys.Modify Sys.PowerMgmt Sys.Syslog User.Modify VM.Allocate VM.Audit VM.Backup VM.Clone \
    VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory \
    VM.Config.Network VM.Config.Options VM.Console VM.Migrate VM.PowerMgmt VM.Snapshot VM.Snapshot.Rollback";
const ONLY_8: &str = "VM.Monitor";
const ONLY_9: &str = "VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileSystemMgmt \
    VM.GuestAgent.FileWrite VM.GuestAgent.Unrestricted VM.Replicate";

impl Pve {
    /// Whether it is Proxmox VE 8.
    #[must_use]
    pub fn is_8(&self) -> bool {
        self.version.starts_with('8')
    }

    /// The address of a node: the first has the API's, the others follow in the cluster's own network.
    #[must_use]
    pub fn address(&self, node: &str) -> String {
        let host = self.api_addr.rsplit_once(':').map_or(self.api_addr.as_str(), |(h, _)| h);
        match self.nodes.keys().position(|n| n == node) {
            None | Some(0) => host.to_owned(),
            Some(i) => format!("192.168.77.{}", i + 1),
        }
    }

    /// All privileges of this version.
    #[must_use]
    pub fn privileges(&self) -> BTreeSet<String> {
        let more = if self.is_8() { ONLY_8 } else { ONLY_9 };
        COMMON.split_ascii_whitespace().chain(more.split_ascii_whitespace()).map(str::to_owned).collect()
    }

    /// The built-in roles.
    #[must_use]
    pub fn builtin_roles(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let all = self.privileges();
        let pick = |f: &dyn Fn(&str) -> bool| all.iter().filter(|p| f(p)).cloned().collect::<BTreeSet<_>>();
        let list = |t: &str| t.split_ascii_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        let agent = |p: &str| p.starts_with("VM.GuestAgent.") && p != "VM.GuestAgent.Unrestricted";
        let user = "VM.Audit VM.Backup VM.Config.CDROM VM.Config.Cloudinit VM.Console VM.PowerMgmt";
        BTreeMap::from([
            ("Administrator", all.clone()),
            ("NoAccess", BTreeSet::new()),
            (
                "PVEAdmin",
                pick(&|p| {
                    !matches!(
                        p,
                        "Permissions.Modify"
                            | "Mapping.Modify"
                            | "Sys.Modify"
                            | "Sys.PowerMgmt"
                            | "Sys.Incoming"
                            | "Sys.AccessNetwork"
                            | "Realm.Allocate"
                    )
                }),
            ),
            ("PVEAuditor", pick(&|p| p.ends_with(".Audit"))),
            ("PVEDatastoreAdmin", pick(&|p| p.starts_with("Datastore."))),
            ("PVEDatastoreUser", list("Datastore.AllocateSpace Datastore.Audit")),
            ("PVEMappingAdmin", pick(&|p| p.starts_with("Mapping."))),
            ("PVEMappingUser", list("Mapping.Audit Mapping.Use")),
            ("PVEPoolAdmin", pick(&|p| p.starts_with("Pool."))),
            ("PVEPoolUser", list("Pool.Audit")),
            ("PVESDNAdmin", pick(&|p| p.starts_with("SDN."))),
            ("PVESDNUser", list("SDN.Audit SDN.Use")),
            ("PVESysAdmin", list("Sys.Audit Sys.Console Sys.Syslog")),
            ("PVETemplateUser", list("VM.Audit VM.Clone")),
            ("PVEUserAdmin", list("Group.Allocate Realm.AllocateUser User.Modify")),
            ("PVEVMAdmin", pick(&|p| p.starts_with("VM."))),
            ("PVEVMUser", list(user).into_iter().chain(pick(&agent)).collect()),
        ])
    }

    /// Privileges of a role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<BTreeSet<String>> {
        self.access.roles.get(name).cloned().or_else(|| self.builtin_roles().get(name).cloned())
    }

    fn roles_at(&self, kind: &str, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut now: BTreeMap<String, bool> = BTreeMap::new();
        for level in levels(path) {
            let exact = level == path;
            let here = |k: &str, whos: &[&str]| {
                let own = self.access.acl.iter().filter(|a| {
                    a.path == level && a.kind == k && whos.contains(&a.who.as_str()) && (a.propagate || exact)
                });
                own.map(|a| (a.role.clone(), a.propagate)).collect::<BTreeMap<_, _>>()
            };
            let mut found = here(kind, &[who]);
            if found.is_empty() && kind == "user" {
                found = here("group", &self.access.groups_of(who));
            }
            if !found.is_empty() {
                now = found;
            }
        }
        if now.contains_key("NoAccess") { BTreeMap::new() } else { now }
    }

    fn privs_of(&self, kind: &str, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut out = BTreeMap::new();
        for (role, propagate) in self.roles_at(kind, who, path) {
            for p in self.role(&role).unwrap_or_default() {
                *out.entry(p).or_insert(propagate) |= propagate;
            }
        }
        out
    }

    fn direct(&self, who: &Who, path: &str) -> BTreeMap<String, bool> {
        let user = if who.user == "root@pam" {
            self.privileges().into_iter().map(|p| (p, true)).collect()
        } else {
            self.privs_of("user", &who.user, path)
        };
        let privsep = who.token.as_ref().and_then(|t| self.access.users.get(&who.user)?.tokens.get(t));
        match privsep {
            Some(t) if t.privsep => {
                let own = self.privs_of("token", &who.id(), path);
                own.into_iter().filter(|(p, _)| user.contains_key(p)).collect()
            }
            _ => user,
        }
    }

    /// Privileges of `who` on `path`, with whether they propagate. VMs and storages inherit from their pool.
    #[must_use]
    pub fn permissions(&self, who: &Who, path: &str) -> BTreeMap<String, bool> {
        let mut out = self.direct(who, path);
        let pool = self.pools.iter().find(|(_, p)| match path.split('/').collect::<Vec<_>>()[..] {
            ["", "vms", id] => id.parse().is_ok_and(|v| p.vms.contains(&v)),
            ["", "storage", s] => p.storages.contains(s),
            _ => false,
        });
        if let Some((id, _)) = pool {
            out.extend(self.direct(who, &format!("/pool/{id}")));
        }
        out
    }

    /// Whether `who` has the privilege.
    #[must_use]
    pub fn has(&self, who: &Who, path: &str, privilege: &str) -> bool {
        self.permissions(who, path).contains_key(privilege)
    }

    /// Where `who` has a privilege among all VMs: asked once per pool and per VM that the ACL names.
    #[must_use]
    pub fn on_vms(&self, who: &Who, privilege: &str) -> OnVms {
        let has = |path: &str| self.direct(who, path).contains_key(privilege);
        let rest = has("/vms/0");
        let mut named: BTreeMap<u32, bool> = BTreeMap::new();
        for a in &self.access.acl {
            if let Some(id) = a.path.strip_prefix("/vms/").and_then(|v| v.parse().ok()) {
                named.entry(id).or_insert_with(|| has(&a.path));
            }
        }
        for (pool, p) in self.pools.iter().filter(|(_, p)| !p.vms.is_empty()) {
            if has(&format!("/pool/{pool}")) {
                named.extend(p.vms.iter().map(|v| (*v, true)));
            }
        }
        OnVms { rest, named }
    }

    /// Requires all of `privs` (`VM.Clone`), or any of them when separated by `|`.
    ///
    /// # Errors
    /// `403` with the server's text.
    pub fn need(&self, who: &Who, path: &str, privs: &str) -> Result<(), ApiError> {
        let have = self.permissions(who, path);
        let ok = privs.split('|').any(|p| have.contains_key(p));
        if ok { Ok(()) } else { Err(ApiError::denied(path, privs)) }
    }

    /// Like [`Pve::need`] on a VM that may be about to be born in `pool`.
    ///
    /// # Errors
    /// `403` with the server's text.
    pub fn need_vm(&self, who: &Who, vmid: u32, pool: Option<&str>, privs: &str) -> Result<(), ApiError> {
        let verdict = self.need(who, &format!("/vms/{vmid}"), privs);
        match (verdict, pool) {
            (Err(e), Some(p)) => self.need(who, &format!("/pool/{p}"), privs).map_err(|_| e),
            (v, _) => v,
        }
    }
}

/// On which VMs a privilege is held.
pub struct OnVms {
    rest: bool,
    named: BTreeMap<u32, bool>,
}

impl OnVms {
    /// Whether it is held on this VM.
    #[must_use]
    pub fn on(&self, vmid: u32) -> bool {
        self.named.get(&vmid).copied().unwrap_or(self.rest)
    }
}

impl Access {
    /// Groups of a user.
    #[must_use]
    pub fn groups_of(&self, user: &str) -> Vec<&str> {
        self.groups.iter().filter(|(_, m)| m.contains(user)).map(|(g, _)| g.as_str()).collect()
    }
}

/// `/`, `/vms`, `/vms/100`.
#[must_use]
pub fn levels(path: &str) -> Vec<String> {
    let mut out = vec!["/".to_owned()];
    let mut now = String::new();
    for p in path.split('/').filter(|p| !p.is_empty()) {
        now = format!("{now}/{p}");
        out.push(now.clone());
    }
    out
}
