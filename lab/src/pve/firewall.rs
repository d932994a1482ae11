//! Firewalls of the cluster, nodes and VMs: options, rules, aliases, address sets, groups.
//! They are kept and shown; no packet of the lab is ever filtered.
use serde_json::{Value, json};

use super::firewall_sets as sets;
use super::params::{b, delete, digest as digest_param, e, n, opt, pat, req, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::sections::{self, Section, fill, unchanged};
use super::state::Row;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

const POLICIES: &[&str] = &["ACCEPT", "REJECT", "DROP"];
const LEVELS: &[&str] = &["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "nolog"];

const CLUSTER: &[Prop] = &[
    b("ebtables"),
    n("enable"),
    t("log_ratelimit"),
    e("policy_forward", &["ACCEPT", "DROP"]),
    e("policy_in", POLICIES),
    e("policy_out", POLICIES),
];
const NODE: &[Prop] = &[
    b("enable"),
    e("log_level_forward", LEVELS),
    e("log_level_in", LEVELS),
    e("log_level_out", LEVELS),
    b("log_nf_conntrack"),
    b("ndp"),
    n("nf_conntrack_max"),
    n("nf_conntrack_tcp_timeout_established"),
    b("nftables"),
    b("nosmurfs"),
    b("protection_synflood"),
    e("smurf_log_level", LEVELS),
    e("tcp_flags_log_level", LEVELS),
    b("tcpflags"),
];
const VM: &[Prop] = &[
    b("dhcp"),
    b("enable"),
    b("ipfilter"),
    e("log_level_in", LEVELS),
    e("log_level_out", LEVELS),
    b("macfilter"),
    b("ndp"),
    e("policy_in", POLICIES),
    e("policy_out", POLICIES),
    b("radv"),
];
const RULE: &[Prop] = &[
    req(Prop { max_len: Some(20), ..pat("action", action) }),
    t("comment"),
    short("dest", 512),
    t("dport"),
    n("enable"),
    t("icmp-type"),
    short("iface", 20),
    e("log", LEVELS),
    short("macro", 128),
    t("proto"),
    short("source", 512),
    t("sport"),
    req(e("type", &["in", "out", "forward", "group"])),
];
const GROUPS: Section = Section {
    table: "firewall/groups",
    key: t("group"),
    fields: &[t("comment"), t("rename")],
    read: ("/", "Sys.Audit"),
    write: ("/", "Sys.Modify"),
    exists: "Security group '{}' already exists",
    missing: "Security group '{}' does not exist",
    gone: "",
    fixed: &[],
};

fn action(v: &str) -> bool {
    let c = v.as_bytes();
    c.len() > 1 && c[0].is_ascii_alphabetic() && c.iter().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c))
}

/// Whose firewall a request is about.
pub(super) struct Scope {
    /// `cluster`, `node/pve1`, `vm/100`, `group/web`.
    pub name: String,
    read: (String, &'static str),
    write: (String, &'static str),
    options: &'static [Prop],
}

impl Scope {
    /// Refuses a sender without the right to read or to change it.
    pub fn need(&self, w: &World, c: &Call, method: &str) -> Result<(), ApiError> {
        let (place, privs) = if method == "GET" { &self.read } else { &self.write };
        w.pve.need(c.who()?, place, privs)
    }
}

/// Handles `/cluster/firewall…`.
///
/// # Errors
/// The server's refusal.
pub fn cluster(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let own = |name: String| Scope {
        name,
        read: ("/".into(), "Sys.Audit"),
        write: ("/".into(), "Sys.Modify"),
        options: CLUSTER,
    };
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["rules", "options", "groups", "aliases", "ipset", "macros", "refs"])),
        ("GET", ["macros"]) => data(json!([
            { "macro": "SSH", "descr": "Secure shell traffic" }, { "macro": "HTTP", "descr": "Hypertext Transfer Protocol (WWW)" },
            { "macro": "HTTPS", "descr": "Hypertext Transfer Protocol (WWW) over SSL" }, { "macro": "Ping", "descr": "ICMP echo request" },
            { "macro": "DNS", "descr": "Domain Name System traffic (upd and tcp)" },
        ])),
        (_, ["groups", group, rest @ ..]) if !(rest.is_empty() && method == "DELETE") => {
            if !w.pve.table(GROUPS.table).contains_key(*group) {
                return Err(ApiError::fail(format!("security group '{group}' does not exist")));
            }
            rules(w, c, method, &own(format!("group/{group}")), rest)
        }
        ("DELETE", ["groups", group]) => {
            if w.pve.rules.get(&format!("group/{group}")).is_some_and(|r| !r.is_empty()) {
                return Err(ApiError::fail(format!("Security group '{group}' is not empty")));
            }
            GROUPS.remove(w, c, group)
        }
        (_, ["groups"]) => crud(w, c, method, &GROUPS, &[]),
        (_, rest) => scoped(w, c, method, &own("cluster".into()), rest),
    }
}

/// Handles `/nodes/{node}/firewall…`.
///
/// # Errors
/// The server's refusal.
pub fn node(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let place = format!("/nodes/{node}");
    let scope = Scope {
        name: format!("node/{node}"),
        read: (place.clone(), "Sys.Audit"),
        write: (place, "Sys.Modify"),
        options: NODE,
    };
    scoped(w, c, method, &scope, path)
}

/// Handles `/nodes/{node}/qemu/{vmid}/firewall…`.
///
/// # Errors
/// The server's refusal.
pub fn vm(w: &mut World, c: &Call, method: &str, vmid: u32, path: &[&str]) -> Reply {
    let place = format!("/vms/{vmid}");
    let scope = Scope {
        name: format!("vm/{vmid}"),
        read: (place.clone(), "VM.Audit"),
        write: (place, "VM.Config.Network"),
        options: VM,
    };
    scoped(w, c, method, &scope, path)
}

fn scoped(w: &mut World, c: &Call, method: &str, s: &Scope, path: &[&str]) -> Reply {
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["rules", "options", "aliases", "ipset", "log", "refs"])),
        ("GET", ["options"]) => {
            w.pve.need(c.who()?, &s.read.0, s.read.1)?;
            let key = format!("firewall/{}", s.name);
            let row = w.pve.settings.get(&key).cloned().unwrap_or_default();
            let mut v = json!({ "digest": sections::digest(&row) });
            for (k, x) in row {
                v[k] = x;
            }
            data(v)
        }
        ("PUT", ["options"]) => {
            let mut spec = s.options.to_vec();
            spec.extend([delete(), digest_param()]);
            w.pve.need(c.who()?, &s.write.0, s.write.1)?;
            c.params.check(&spec)?;
            let key = format!("firewall/{}", s.name);
            let mut row = w.pve.settings.get(&key).cloned().unwrap_or_default();
            unchanged(&c.params, &sections::digest(&row))?;
            fill(&mut row, &c.params, s.options)?;
            if row.is_empty() {
                w.pve.settings.remove(&key);
            } else {
                w.pve.settings.insert(key, row);
            }
            null()
        }
        ("GET", ["log"]) if s.name != "cluster" => {
            s.need(w, c, method)?;
            c.params.check(&[n("limit"), n("start"), n("since"), n("until")])?;
            Ok(super::reply::Out { total: Some(1), ..json!([{ "n": 1, "t": "no content" }]).into() })
        }
        ("GET", ["refs"]) => {
            s.need(w, c, method)?;
            c.params.check(&[e("type", &["alias", "ipset"])])?;
            data(sets::refs(w, &s.name, c.params.get("type").as_deref()))
        }
        (_, ["aliases", rest @ ..]) if !s.name.starts_with("node/") => sets::aliases(w, c, method, s, rest),
        (_, ["ipset", rest @ ..]) if !s.name.starts_with("node/") => sets::ipsets(w, c, method, s, rest),
        (_, ["rules", rest @ ..]) => rules(w, c, method, s, rest),
        _ => Err(c.unknown()),
    }
}

fn crud(w: &mut World, c: &Call, method: &str, s: &Section, path: &[&str]) -> Reply {
    match (method, path) {
        ("GET", []) => s.list(w, c),
        ("POST", []) => s.create(w, c, |_, _, _| Ok(())),
        ("GET", [id]) => s.get(w, c, id),
        ("PUT", [id]) => s.update(w, c, id, |_, _, _| Ok(())),
        ("DELETE", [id]) => s.remove(w, c, id),
        _ => Err(c.unknown()),
    }
}

fn rules(w: &mut World, c: &Call, method: &str, s: &Scope, path: &[&str]) -> Reply {
    s.need(w, c, method)?;
    let all = w.pve.rules.get(&s.name).cloned().unwrap_or_default();
    let digest = sections::digest(&all);
    let view = |pos: usize, r: &Row| {
        let mut v = json!({ "pos": pos, "digest": digest });
        for (k, x) in r {
            v[k] = x.clone();
        }
        v
    };
    let at = |pos: &str| {
        let n = pos.parse::<usize>().ok().filter(|n| *n < all.len());
        n.ok_or_else(|| ApiError::fail(format!("no rule at position {pos}")))
    };
    match (method, path) {
        ("GET", []) => data(all.iter().enumerate().map(|(i, r)| view(i, r)).collect::<Vec<Value>>()),
        ("POST", []) => {
            let mut spec = RULE.to_vec();
            spec.extend([digest_param(), n("pos")]);
            c.params.check(&spec)?;
            unchanged(&c.params, &digest)?;
            let mut row = Row::new();
            fill(&mut row, &c.params, RULE)?;
            let list = w.pve.rules.entry(s.name.clone()).or_default();
            // Without a position a rule goes to the top.
            let pos = c.params.int("pos").and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(list.len());
            list.insert(pos, row);
            null()
        }
        ("GET", [pos]) => {
            let i = at(pos)?;
            data(view(i, &all[i]))
        }
        ("PUT", [pos]) => {
            let i = at(pos)?;
            let mut spec: Vec<Prop> = RULE.iter().map(|f| Prop { required: false, ..*f }).collect();
            spec.extend([digest_param(), delete(), opt("moveto", Ty::Int)]);
            c.params.check(&spec)?;
            unchanged(&c.params, &digest)?;
            let mut row = all[i].clone();
            fill(&mut row, &c.params, RULE)?;
            let list = w.pve.rules.entry(s.name.clone()).or_default();
            list.remove(i);
            let to = c.params.int("moveto").and_then(|n| usize::try_from(n).ok()).unwrap_or(i).min(list.len());
            list.insert(to, row);
            null()
        }
        ("DELETE", [pos]) => {
            let i = at(pos)?;
            unchanged(&c.params, &digest)?;
            if let Some(list) = w.pve.rules.get_mut(&s.name) {
                list.remove(i);
            }
            w.pve.rules.retain(|_, l| !l.is_empty());
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// A VM has gone, and its firewall with it.
pub fn forget(w: &mut World, vmid: u32) {
    w.pve.settings.remove(&format!("firewall/vm/{vmid}"));
    w.pve.rules.remove(&format!("vm/{vmid}"));
    sets::forget(w, &format!("vm/{vmid}"));
}
