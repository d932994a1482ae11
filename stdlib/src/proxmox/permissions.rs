//! `check_permissions`: what the token lacks, and the `pveum` lines that grant it.
//!
//! The privileges are the measured least set: each was found by taking it away until a step failed.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::op::Op;
use crate::site::Site;

use super::error::{ApiError, Fault};
use super::request;
use super::template::places;
use super::types::{Proxmox, Report};
use super::wanted::mapping_of;

/// Something the token must be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Paths of which one must carry the privileges.
    pub paths: Vec<String>,
    /// Role that carries them.
    pub role: &'static str,
    /// Privileges.
    pub privileges: Vec<&'static str>,
    /// What for.
    pub why: &'static str,
}

/// `9` of `9.1.1`.
#[must_use]
pub fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(9)
}

fn machine_privileges(major: u32) -> Vec<&'static str> {
    // VM.Monitor became VM.GuestAgent.* with 9, and the old name is refused there.
    let agent = if major >= 9 { "VM.GuestAgent.Unrestricted" } else { "VM.Monitor" };
    vec![
        "VM.Allocate",
        "VM.Audit",
        "VM.Clone",
        "VM.Config.CPU",
        "VM.Config.Cloudinit",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.PowerMgmt",
        agent,
    ]
}

/// All that a deploy and a cleanup of `site` need.
#[must_use]
pub fn needs(site: &Site, major: u32) -> Vec<Need> {
    let one = |p: String| vec![p];
    let mut out = vec![
        Need {
            paths: one(format!("/pool/{}", site.pool())),
            role: "GpuhostMachines",
            privileges: machine_privileges(major),
            why: "make, change, start and remove machines",
        },
        Need {
            paths: one(format!("/pool/{}", site.pool())),
            role: "GpuhostPool",
            privileges: vec!["Pool.Allocate", "Pool.Audit"],
            why: "make the site's pool",
        },
        Need {
            // Proxmox drops the rights on a pool together with the pool, and every lock is a new one.
            paths: one("/pool".to_owned()),
            role: "GpuhostPool",
            privileges: vec!["Pool.Allocate", "Pool.Audit"],
            why: "hold the site's lock, a pool of its own",
        },
        Need {
            paths: one("/".to_owned()),
            role: "GpuhostAudit",
            privileges: vec!["Sys.Audit"],
            why: "read nodes and PCI devices",
        },
    ];
    if site.template.existing {
        out.push(Need {
            paths: one(format!("/vms/{}", site.template.vmid)),
            role: "GpuhostTemplate",
            privileges: vec!["VM.Audit", "VM.Clone"],
            why: "clone the template",
        });
    }
    out.extend(storage_needs(site));
    if !site.template.existing {
        out.push(Need {
            paths: one(format!("/pool/{}", site.pool())),
            role: "GpuhostBuild",
            privileges: vec!["VM.Config.CDROM"],
            why: "attach the seed of the template build",
        });
        out.push(Need {
            paths: one(format!("/storage/{}", site.proxmox.image_storage)),
            role: "GpuhostImages",
            privileges: vec!["Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit"],
            why: "store the cloud image and the seed",
        });
        for (_, at) in places(site) {
            out.push(Need {
                paths: one(format!("/nodes/{}", at.node)),
                role: "GpuhostDownload",
                // An entry on a deeper path replaces what comes down from `/`: Sys.Audit has to be said again.
                privileges: vec!["Sys.AccessNetwork", "Sys.Audit"],
                why: "let the hypervisor download the cloud image",
            });
        }
    }
    out.push(Need {
        paths: one(format!("/sdn/zones/localnetwork/{}", site.network.bridge)),
        role: "GpuhostNetwork",
        privileges: vec!["SDN.Use"],
        why: "attach machines to the bridge",
    });
    for m in mappings(site) {
        out.push(Need {
            paths: one(format!("/mapping/pci/{m}")),
            role: "GpuhostMapping",
            privileges: vec!["Mapping.Use"],
            why: "pass the GPUs through",
        });
    }
    out
}

/// Disks on every storage that a machine names.
fn storage_needs(site: &Site) -> impl Iterator<Item = Need> {
    let mut storages: BTreeSet<String> = BTreeSet::from([site.proxmox.storage.clone()]);
    for s in site.nodes.iter().map(|n| &n.shape) {
        storages.extend([&s.disk_storage, &s.scratch_storage, &s.data_storage].into_iter().flatten().cloned());
    }
    storages.into_iter().map(|s| Need {
        paths: vec![format!("/storage/{s}")],
        role: "GpuhostStorage",
        privileges: vec!["Datastore.AllocateSpace", "Datastore.Audit"],
        why: "make disks",
    })
}

/// What making GPU mappings and keeping them needs, unless an administrator does it. An entry on a mapping's own
/// path replaces what comes down from `/mapping/pci`: the right to change it is granted there once more.
fn mapping_needs(missing: &[String]) -> Vec<Need> {
    let need = |path: String, why| Need {
        paths: vec![path],
        role: "GpuhostMappingAdmin",
        privileges: vec!["Mapping.Modify"],
        why,
    };
    let make = need("/mapping/pci".to_owned(), "make the GPU mapping, unless an administrator makes it once");
    let change = |m: &String| need(format!("/mapping/pci/{m}"), "change the GPU mapping when cards come or go");
    if missing.is_empty() { Vec::new() } else { std::iter::once(make).chain(missing.iter().map(change)).collect() }
}

/// PCI mappings that the site's machines use.
fn mappings(site: &Site) -> BTreeSet<String> {
    site.nodes.iter().filter(|n| n.shape.gpu_count() > 0).filter_map(|n| mapping_of(site, n)).collect()
}

/// Privileges of `/access/permissions` that hold at `path`: the nearest ancestor that is listed decides.
#[must_use]
pub fn effective(all: &Value, path: &str) -> BTreeSet<String> {
    let mut at = path.to_owned();
    let mut exact = true;
    loop {
        if let Some(found) = all.get(at.as_str()).and_then(Value::as_object) {
            // 1: also below; 0: only at this very path.
            let holds = |v: &Value| exact || v.as_i64() == Some(1) || v.as_bool() == Some(true);
            return found.iter().filter(|(_, v)| holds(v)).map(|(k, _)| k.clone()).collect();
        }
        if at == "/" || at.is_empty() {
            return BTreeSet::new();
        }
        exact = false;
        at = match at.rfind('/') {
            Some(0) | None => "/".to_owned(),
            Some(i) => at[..i].to_owned(),
        };
    }
}

fn lacking(all: &Value, need: &Need) -> Vec<&'static str> {
    let paths = need.paths.iter().map(|p| effective(all, p));
    let missing = |have: &BTreeSet<String>| {
        let m = need.privileges.iter().filter(|p| !have.contains(**p) && !stands_in(have, p));
        m.copied().collect::<Vec<_>>()
    };
    paths.map(|h| missing(&h)).min_by_key(Vec::len).unwrap_or_default()
}

/// Privileges that another one covers.
fn stands_in(have: &BTreeSet<String>, privilege: &str) -> bool {
    match privilege {
        "Sys.AccessNetwork" => have.contains("Sys.Modify"),
        _ => false,
    }
}

/// What lacks, with what else is needed on the same paths and below: an entry on a path replaces what comes down from above.
fn affected<'a>(needs: &'a [Need], lacking: &BTreeSet<&str>) -> Vec<&'a Need> {
    let touched = |n: &&Need| {
        let path = n.paths.first().map(String::as_str).unwrap_or_default();
        lacking.iter().any(|l| path == *l || (*l != "/" && path.starts_with(&format!("{l}/"))))
    };
    needs.iter().filter(touched).collect()
}

/// `pveum` lines that grant the needs on the `lacking` paths to the token (and its user: a token has at most the user's
/// rights). Roles that exist get what they lack.
#[must_use]
pub fn commands(site: &Site, all: &[Need], lacking: &BTreeSet<&str>, exist: &Roles) -> Vec<String> {
    let who = site.proxmox.identity();
    let user = who.split('!').next().unwrap_or(who);
    let needs = affected(all, lacking);
    let mut roles: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for n in all.iter().filter(|n| needs.iter().any(|o| o.role == n.role)) {
        roles.entry(n.role).or_default().extend(n.privileges.iter());
    }
    let mut out: Vec<String> = Vec::new();
    for (role, privileges) in &roles {
        let have = exist.get(*role);
        let missing = privileges.iter().copied().filter(|p| !have.is_some_and(|h| h.contains(*p)));
        let list = missing.collect::<Vec<_>>().join(" ");
        match have {
            None => out.push(format!("pveum role add {role} --privs \"{list}\"")),
            Some(_) if list.is_empty() => {}
            Some(_) => out.push(format!("pveum role modify {role} --privs \"{list}\" --append 1")),
        }
    }
    let mut by_path: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for n in needs {
        if let Some(p) = n.paths.first() {
            by_path.entry(p).or_default().insert(n.role);
        }
    }
    for (path, roles) in by_path {
        let list: Vec<&str> = roles.into_iter().collect();
        let list = list.join(",");
        out.push(format!("pveum acl modify {path} --users {user} --roles {list}"));
        if who.contains('!') {
            out.push(format!("pveum acl modify {path} --tokens '{who}' --roles {list}"));
        }
    }
    out
}

/// Roles that exist, with their privileges.
pub type Roles = BTreeMap<String, BTreeSet<String>>;

fn read_roles(list: &[Value]) -> Roles {
    let privileges = |r: &Value| {
        let text = r["privs"].as_str().unwrap_or_default();
        text.split([',', ' ']).filter(|p| !p.is_empty()).map(str::to_owned).collect()
    };
    list.iter().filter_map(|r| Some((r["roleid"].as_str()?.to_owned(), privileges(r)))).collect()
}

fn lack(missing: &[&str], path: &str) -> String {
    format!("the token lacks {} on {path}", missing.join(", "))
}

impl Proxmox {
    /// A check of several rights at once (clone, download) is refused without naming one: names what a
    /// deploy of the site lacks.
    pub(super) async fn explain_denied(&self, ctx: &Ctx, mut e: ApiError) -> ApiError {
        let silent = matches!(&e.fault, Fault::Denied { path, .. } if path.is_empty());
        let (Some(site), true) = (ctx.site.clone(), silent && !e.text.starts_with("only root")) else { return e };
        let Ok(all) = self.send_once(ctx, &request::get("/access/permissions")).await else { return e };
        let version = self.known_version().unwrap_or_default();
        for need in needs(&site, major(&version)) {
            let missing = lacking(&all, &need);
            if !missing.is_empty() {
                let path = need.paths.first().map(String::as_str).unwrap_or_default();
                e.causes.push(format!("{}, needed to {}", lack(&missing, path), need.why));
            }
        }
        e
    }

    /// Compares the token's privileges with what a deploy of the site needs.
    ///
    /// # Errors
    /// What the request met.
    pub async fn check_permissions(&self, ctx: &Ctx) -> OpResult<Report> {
        let site = ctx.site()?;
        ctx.run_op(Op::read("proxmox", "check_permissions", site.proxmox.identity()), |_| async {
            let version = self.version(ctx).await?;
            let all = self.send(ctx, &request::get("/access/permissions")).await?;
            let mut needs = needs(&site, major(&version));
            let mut missing = Vec::new();
            for m in mappings(&site) {
                // A mapping that is hidden from the token counts as missing: Mapping.Use is asked for anyway.
                if !matches!(self.find(ctx, &request::mapping(&m)).await, Ok(Some(_))) {
                    missing.push(m);
                }
            }
            needs.extend(mapping_needs(&missing));
            let mut r = Report::new(format!("permissions of {} on Proxmox VE {version}", site.proxmox.identity()));
            let names = self.check_names(ctx, &site, &all, &mut r).await?;
            let path_of = |n: &Need| n.paths.first().cloned().unwrap_or_default();
            needs.retain(|n| !names.wrong.contains(&path_of(n)));
            let mut lacks = BTreeSet::new();
            for need in &needs {
                let path = need.paths.first().map(String::as_str).unwrap_or_default();
                let missing = lacking(&all, need);
                if missing.is_empty() {
                    r.pass(format!("{path}: {}", need.why));
                } else {
                    let or = names.unsure.get(path).map(|u| format!("; {u}")).unwrap_or_default();
                    r.fail(lack(&missing, path), format!("needed to {}{or}", need.why));
                    lacks.insert(path);
                }
            }
            if !lacks.is_empty() {
                let pool = self.read_pool(ctx, &site.pool()).await.ok().flatten();
                let kept = pool.as_ref().is_some_and(super::pool::is_kept);
                if !kept {
                    r.commands = vec![super::pool::command(&site, pool.is_some())];
                }
                let exist = read_roles(&self.send_list(ctx, &request::get("/access/roles")).await.unwrap_or_default());
                r.commands.extend(commands(&site, &needs, &lacks, &exist));
                r.rights = true;
            }
            Ok(r)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn site() -> Site {
        let text = include_str!("../../../recipes/site.toml");
        crate::site::load(std::path::Path::new("site.toml"), text).unwrap()
    }

    #[test]
    fn the_nearest_listed_ancestor_decides() {
        let all = json!({"/": {"A": 1, "B": 0}, "/vms": {"C": 1}, "/pool/x": {"D": 0}});
        let at = |p: &str| effective(&all, p).into_iter().collect::<Vec<_>>().join("");
        assert_eq!(
            (at("/"), at("/nodes/p"), at("/vms/201"), at("/pool/x"), at("/pool/x/y")),
            ("AB".to_owned(), "A".to_owned(), "C".to_owned(), "D".to_owned(), String::new())
        );
    }

    #[test]
    fn privileges_follow_the_version() {
        let of = |m| needs(&site(), m).into_iter().flat_map(|n| n.privileges).collect::<Vec<_>>();
        assert!(of(9).contains(&"VM.GuestAgent.Unrestricted") && !of(9).contains(&"VM.Monitor"));
        assert!(of(8).contains(&"VM.Monitor") && !of(8).contains(&"VM.GuestAgent.Unrestricted"));
        assert_eq!((major("8.4.1"), major("9.1")), (8, 9));
    }

    #[test]
    fn what_lacks_is_named_and_granted() {
        let s = site();
        let all = json!({"/": {"Sys.Audit": 1, "VM.Audit": 1}});
        let needs = needs(&s, 9);
        assert!(lacking(&all, &needs[0]).contains(&"VM.Allocate"));
        let audit = needs.iter().find(|n| n.role == "GpuhostAudit").unwrap();
        assert!(lacking(&all, audit).is_empty());
        let paths = |needs: &[Need]| needs.iter().filter_map(|n| n.paths.first().cloned()).collect::<Vec<_>>();
        let every = paths(&needs);
        let every: BTreeSet<&str> = every.iter().map(String::as_str).collect();
        let c = commands(&s, &needs, &every, &Roles::new());
        assert!(c.iter().any(|l| l.starts_with("pveum role add GpuhostMachines --privs \"VM.Allocate")), "{c:?}");
        assert!(c.contains(&"pveum acl modify /pool/gpuhost-homelab --tokens 'gpuhost@pve!deploy' --roles GpuhostBuild,GpuhostMachines,GpuhostPool".to_owned()), "{c:?}");
        // What is there is not made again, and only what lacks is added.
        let lacks = BTreeSet::from(["/storage/local"]);
        let mut exist =
            read_roles(&[json!({"roleid": "GpuhostImages", "privs": "Datastore.AllocateSpace,Datastore.Audit"})]);
        let some = commands(&s, &needs, &lacks, &exist);
        let role = "pveum role modify GpuhostImages --privs \"Datastore.AllocateTemplate\" --append 1";
        assert!(
            some[0] == role && some[1..].iter().all(|l| l.starts_with("pveum acl modify /storage/local ")),
            "{some:?}"
        );
        exist.get_mut("GpuhostImages").unwrap().insert("Datastore.AllocateTemplate".to_owned());
        assert!(commands(&s, &needs, &lacks, &exist).iter().all(|l| l.starts_with("pveum acl ")));
        let with = [needs, mapping_needs(&["gpuhost-a100".to_owned()])].concat();
        let every = paths(&with);
        let all = commands(&s, &with, &every.iter().map(String::as_str).collect(), &Roles::new());
        let own =
            "pveum acl modify /mapping/pci/gpuhost-a100 --users gpuhost@pve --roles GpuhostMapping,GpuhostMappingAdmin";
        assert!(all.iter().any(|l| l == own), "{all:?}");
        let needs = super::needs(&s, 9);
        let everything: serde_json::Map<String, Value> =
            needs.iter().flat_map(|n| n.privileges.clone()).map(|p| (p.to_owned(), 1.into())).collect();
        let all = json!({"/": everything});
        assert!(needs.iter().all(|n| lacking(&all, n).is_empty()));
    }
}
