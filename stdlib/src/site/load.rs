//! From text to a validated [`Site`]: every finding at once, each with its place.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::schema::{OPTIONAL, SECTIONS, SHAPE};
use super::source::{Finding, Source, join};
use super::types::{Node, Role, RoleKind, Shape, Site};
use crate::core::options::{Field, closest};
use crate::core::units::{Duration, Size};

/// Reads and validates a site file.
///
/// # Errors
/// Everything that is wrong with it, in file order.
pub fn load(path: &Path, text: &str) -> Result<Site, Vec<Finding>> {
    load_with_warnings(path, text).map(|(site, _)| site)
}

/// Like [`load`], with the warnings of a good file.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load_with_warnings(path: &Path, text: &str) -> Result<(Site, Vec<Finding>), Vec<Finding>> {
    let src = Source::parse(&path.display().to_string(), text)?;
    let mut found = Vec::new();
    check_keys(&src, &mut found);
    if found.iter().any(|f| !f.warning) {
        return Err(sorted(found));
    }
    let site = match build(&src, path) {
        Ok(site) => site,
        Err(e) => return Err(vec![e]),
    };
    check_meaning(&src, &site, &mut found);
    if found.iter().any(|f| !f.warning) { Err(sorted(found)) } else { Ok((site, sorted(found))) }
}

fn sorted(mut f: Vec<Finding>) -> Vec<Finding> {
    f.sort_by_key(|f| (f.line, f.column));
    f
}

fn check_keys(src: &Source, out: &mut Vec<Finding>) {
    let mut tops: Vec<&str> = Vec::new();
    for top in SECTIONS.iter().map(|s| s.path.split('.').next().unwrap_or(s.path)).chain(["connect", "platform"]) {
        if !tops.contains(&top) {
            tops.push(top);
        }
    }
    for key in src.table.keys() {
        if !tops.contains(&key.as_str()) {
            out.push(unknown(src, key, key, "section", tops.iter().copied()));
        }
    }
    for s in SECTIONS {
        match s.path.strip_suffix(".*") {
            Some(parent) => check_each(src, parent, s.fields, out),
            None => check_section(src, s.path, &[s.fields], out),
        }
    }
    if let Some(toml::Value::Table(p)) = src.table.get("platform") {
        let known: Vec<&str> = SECTIONS.iter().filter_map(|s| s.path.strip_prefix("platform.")).collect();
        for key in p.keys().filter(|k| !known.contains(&k.as_str())) {
            out.push(unknown(src, &join("platform", key), key, "section", known.iter().copied()));
        }
    }
}

fn check_each(src: &Source, parent: &str, fields: &'static [Field], out: &mut Vec<Finding>) {
    match src.table.get(parent) {
        Some(toml::Value::Table(t)) => {
            for name in t.keys() {
                check_section(src, &join(parent, name), &[fields, SHAPE], out);
            }
        }
        Some(toml::Value::Array(a)) => {
            for i in 0..a.len() {
                check_section(src, &join(parent, &i.to_string()), &[fields, SHAPE], out);
            }
        }
        Some(_) => out.push(src.value(parent, format!("`{parent}` is not a table"), None)),
        None => out.push(src.value("", format!("section `{parent}` is missing"), None)),
    }
}

pub(super) fn at<'a>(src: &'a Source, path: &str) -> Option<&'a toml::Value> {
    let mut parts = path.split('.');
    let mut v = src.table.get(parts.next()?)?;
    for p in parts {
        v = match v {
            toml::Value::Table(t) => t.get(p)?,
            toml::Value::Array(a) => a.get(p.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(v)
}

fn check_section(src: &Source, path: &str, fields: &[&'static [Field]], out: &mut Vec<Finding>) {
    let Some(value) = at(src, path) else {
        if !OPTIONAL.contains(&path) {
            out.push(src.value("", format!("section `[{path}]` is missing"), None));
        }
        return;
    };
    let Some(table) = value.as_table() else {
        out.push(src.value(path, format!("`{path}` is not a table"), Some(format!("write it as `[{path}]`"))));
        return;
    };
    let all = || fields.iter().flat_map(|f| f.iter());
    for (key, v) in table {
        let sub = join(path, key);
        match all().find(|f| f.name == key) {
            None => out.push(unknown(src, &sub, key, "key", all().map(|f| f.name))),
            Some(f) => {
                if let Err(e) = check_type(f.ty, v) {
                    out.push(src.value(&sub, format!("`{key}`: {e}"), None));
                }
            }
        }
    }
    for f in all().filter(|f| f.default.is_none() && !table.contains_key(f.name)) {
        let hint = format!("{} = …   # {}", f.name, f.doc.trim());
        out.push(src.value(path, format!("`{}` is missing in `{path}`", f.name), Some(hint)));
    }
}

fn unknown<'a>(src: &Source, path: &str, key: &str, what: &str, known: impl Iterator<Item = &'a str>) -> Finding {
    let known: Vec<&str> = known.collect();
    let hint = match closest(key, known.iter().copied()) {
        Some(k) => format!("did you mean `{k}`?"),
        None => format!("known: {}", known.join(", ")),
    };
    src.key(path, format!("unknown {what} `{key}`"), Some(hint))
}

fn check_type(ty: &str, v: &toml::Value) -> Result<(), String> {
    let found = || match v {
        toml::Value::String(s) => format!("`\"{s}\"`"),
        toml::Value::Array(_) => "a list".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
        other => format!("`{other}`"),
    };
    let want = |what: &str| Err(format!("expected {what}, found {}", found()));
    match (ty, v) {
        ("int", toml::Value::Integer(n)) if *n < 0 => want("a whole number of 0 or more"),
        ("int", toml::Value::Integer(_))
        | ("bool", toml::Value::Boolean(_))
        | ("string", toml::Value::String(_))
        | ("Map" | "Map of strings", toml::Value::Table(_))
        | ("array" | "Array", toml::Value::Array(_))
        | ("any", _) => Ok(()),
        ("int", _) => want("a whole number"),
        ("bool", _) => want("true or false"),
        ("string", _) => want("a text"),
        ("Size", toml::Value::String(s)) => Size::parse(s).map(|_| ()),
        ("Size", _) => want("a size such as `\"16 GiB\"`"),
        ("Duration", toml::Value::String(s)) => Duration::parse(s).map(|_| ()),
        ("Duration", _) => want("a duration such as `\"5m\"`"),
        ("[string]", toml::Value::Array(a)) if a.iter().all(toml::Value::is_str) => Ok(()),
        ("[string]", _) => want("a list of texts"),
        ("secret" | "Secret", toml::Value::String(s)) if reference(s) => Ok(()),
        ("secret" | "Secret", toml::Value::String(_)) => {
            Err("expected a reference (`env:NAME`, `file:PATH` or `state:NAME`), found a literal value".to_owned())
        }
        ("secret" | "Secret", _) => want("a reference such as `\"env:NAME\"`"),
        ("Map" | "Map of strings", _) => want("a table"),
        ("array" | "Array", _) => want("a list"),
        _ => Ok(()),
    }
}

fn reference(s: &str) -> bool {
    ["env:", "file:", "state:"].iter().any(|p| s.strip_prefix(p).is_some_and(|rest| !rest.is_empty()))
}

fn section<T: DeserializeOwned>(src: &Source, path: &str) -> Result<T, Finding> {
    let v = at(src, path).cloned().unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    v.try_into().map_err(|e: toml::de::Error| src.value(path, format!("`{path}`: {}", e.message().trim()), None))
}

fn build(src: &Source, path: &Path) -> Result<Site, Finding> {
    let text = |p: &str| at(src, p).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    let table = |p: &str| at(src, p).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let uuid = text("site.uuid");
    let proxmox: super::types::ProxmoxSection = section(src, "proxmox")?;
    let mut roles = BTreeMap::new();
    for name in table("roles").keys() {
        roles.insert(name.clone(), role(src, name)?);
    }
    let mut nodes = Vec::new();
    let count = at(src, "nodes").and_then(toml::Value::as_array).map_or(0, Vec::len);
    for i in 0..count {
        nodes.push(node(src, i, &roles, &uuid, &proxmox.pve_node)?);
    }
    Ok(Site {
        path: path.to_owned(),
        name: text("site.name"),
        uuid,
        network: section(src, "network")?,
        template: section(src, "template")?,
        ssh: section(src, "ssh")?,
        roles,
        nodes,
        k3s: table("k3s"),
        storage: table("storage"),
        gpu: table("gpu"),
        platform: table("platform"),
        connect: section(src, "connect")?,
        permissions: table("permissions"),
        lab_control: at(src, "lab.control").and_then(toml::Value::as_str).map(str::to_owned),
        proxmox,
    })
}

fn role(src: &Source, name: &str) -> Result<Role, Finding> {
    let path = join("roles", name);
    let mut t = at(src, &path).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let kind = t.remove("kind").and_then(|k| k.as_str().map(str::to_owned)).unwrap_or_default();
    let kind = match kind.as_str() {
        "server" => RoleKind::Server,
        "agent" => RoleKind::Agent,
        "storage" => RoleKind::Storage,
        other => {
            let hint = "kinds: server, agent, storage".to_owned();
            return Err(src.value(&join(&path, "kind"), format!("unknown kind `{other}`"), Some(hint)));
        }
    };
    let shape = toml::Value::Table(t)
        .try_into()
        .map_err(|e: toml::de::Error| src.value(&path, format!("`{path}`: {}", e.message().trim()), None))?;
    Ok(Role { kind, shape })
}

fn node(src: &Source, i: usize, roles: &BTreeMap<String, Role>, uuid: &str, pve: &str) -> Result<Node, Finding> {
    let path = format!("nodes.{i}");
    let mut t = at(src, &path).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let mut take = |k: &str| t.remove(k).and_then(|v| v.as_str().map(str::to_owned));
    let (name, role_name, ip) =
        (take("name").unwrap_or_default(), take("role").unwrap_or_default(), take("ip").unwrap_or_default());
    let (mac, pve_node) = (take("mac"), take("pve_node").unwrap_or_else(|| pve.to_owned()));
    let vmid = t.remove("vmid").and_then(|v| v.as_integer()).unwrap_or(0);
    let vmid = u32::try_from(vmid)
        .ok()
        .filter(|v| (100..=999_999_999).contains(v))
        .ok_or_else(|| src.value(&join(&path, "vmid"), format!("vmid `{vmid}` is outside 100 to 999999999"), None))?;
    let Some(role) = roles.get(&role_name) else {
        let hint = match closest(&role_name, roles.keys().map(String::as_str)) {
            Some(k) => format!("did you mean `{k}`?"),
            None => format!("declare it as `[roles.{role_name}]`"),
        };
        return Err(src.value(&join(&path, "role"), format!("unknown role `{role_name}`"), Some(hint)));
    };
    let own: Shape = toml::Value::Table(t)
        .try_into()
        .map_err(|e: toml::de::Error| src.value(&path, format!("`{path}`: {}", e.message().trim()), None))?;
    Ok(Node {
        mac: mac.unwrap_or_else(|| derived_mac(uuid, vmid)),
        name,
        role: role_name,
        kind: role.kind,
        pve_node,
        vmid,
        ip,
        shape: own.over(&role.shape),
        line: src.line(&path),
    })
}

/// A stable MAC in Proxmox' own prefix.
pub(crate) fn derived_mac(uuid: &str, vmid: u32) -> String {
    let sum = Sha256::digest(format!("{uuid}/{vmid}").as_bytes());
    format!("BC:24:11:{:02X}:{:02X}:{:02X}", sum[0], sum[1], sum[2])
}

fn check_meaning(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    check_names(src, site, out);
    check_addresses(src, site, out);
    super::sense::check(src, site, out);
    if uuid::Uuid::parse_str(&site.uuid).is_err() {
        out.push(src.value(
            "site.uuid",
            format!("`{}` is not a UUID", site.uuid),
            Some("`gpuhost init` mints one".to_owned()),
        ));
    }
    if !site.proxmox.url.starts_with("https://") {
        let hint = "the Proxmox API is served over TLS: `https://host:8006`".to_owned();
        out.push(src.value("proxmox.url", format!("`{}` is not an https URL", site.proxmox.url), Some(hint)));
    }
    check_identity(src, site, out);
    check_machines(src, site, out);
    let t = &site.template;
    if !t.existing && t.image_url.is_none() {
        let hint =
            "give `image_url` and its published checksum (`image_sha512` or `image_sha256`), or `existing = true`"
                .to_owned();
        out.push(src.value("template", "the template has neither an image nor `existing = true`", Some(hint)));
    }
    let servers = site.nodes.iter().filter(|n| n.kind == RoleKind::Server).count();
    if servers == 0 {
        out.push(src.value("nodes", "no node has a role of kind `server`", None));
    } else if servers.is_multiple_of(2) {
        let mut f = src.value("nodes", crate::k3s::even_servers(servers), Some("use 1, 3 or 5".to_owned()));
        f.warning = true;
        out.push(f);
    }
    if site.gpu_count() > 0 && site.gpu.is_empty() {
        out.push(src.value("nodes", "nodes have `gpus` but section `[gpu]` is missing", None));
    }
    if let Some(v) = site.k3s.get("version").and_then(toml::Value::as_str) {
        let ok = v.starts_with('v') && v.contains("+k3s") && v.split('.').count() == 3;
        if !ok {
            let hint = "a release such as `v1.34.9+k3s1`, never a channel".to_owned();
            out.push(src.value("k3s.version", format!("`{v}` is not a K3s release"), Some(hint)));
        }
    }
}

/// A token or a user, each with its secret.
fn check_identity(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let p = &site.proxmox;
    let hint = "give `token_id` and `token`, or `user` and `password`".to_owned();
    let has_token = !p.token_id.is_empty() || !p.token.is_empty();
    let has_user = p.user.is_some() || p.password.is_some();
    let what = match (has_token, has_user) {
        (true, true) => "both a token and a user are named",
        (false, false) => "neither a token nor a user is named",
        (true, false) if p.token_id.is_empty() || p.token.is_empty() => "a token has `token_id` and `token`",
        (false, true) if p.user.is_none() || p.password.is_none() => "a user has `user` and `password`",
        _ => return,
    };
    out.push(src.value("proxmox", what, Some(hint)));
}

/// What Proxmox would refuse of a machine, at the key that decides it.
fn check_machines(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, n) in site.nodes.iter().enumerate() {
        for r in crate::proxmox::lint::refusals(&crate::proxmox::wanted::wanted(site, n, &[])) {
            let key = r.site_key.split('.').next().unwrap_or_default();
            let own =
                [format!("nodes.{i}.{}", r.site_key), format!("nodes.{i}.{key}"), format!("roles.{}.{key}", n.role)];
            let path = own.into_iter().find(|p| at(src, p).is_some()).unwrap_or(r.site_key);
            if seen.insert((path.clone(), r.value.clone())) {
                let text = format!("Proxmox would refuse `{}` = `{}` of {}: {}", r.key, r.value, n.name, r.why);
                out.push(src.value(&path, text.replace('\n', " "), None));
            }
        }
    }
}

fn check_names(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let dns = |s: &str| {
        !s.is_empty()
            && s.len() <= 63
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !s.starts_with('-')
            && !s.ends_with('-')
    };
    if !dns(&site.name) {
        out.push(src.value(
            "site.name",
            format!("`{}` is not a DNS label", site.name),
            Some("lower-case letters, digits and `-`".to_owned()),
        ));
    }
    // The lock of site `a` is the pool `gpuhost-a-lock-1`: it would be the pool of a site `a-lock-1`.
    for (part, names) in [("-lock-", "locks"), ("-once-", "marks")] {
        if site.name.contains(part) {
            let what = format!("`{}` contains `{part}`, which names {names} of sites", site.name);
            out.push(src.value("site.name", what, Some("another name".to_owned())));
        }
    }
    let mut seen: BTreeMap<(&str, String), usize> = BTreeMap::new();
    seen.insert(("vmid", site.template.vmid.to_string()), src.line("template.vmid"));
    for (i, n) in site.nodes.iter().enumerate() {
        if !dns(&n.name) {
            let hint = "lower-case letters, digits and `-`".to_owned();
            out.push(src.value(&format!("nodes.{i}.name"), format!("`{}` is not a host name", n.name), Some(hint)));
        }
        let mine = [
            ("name", n.name.clone()),
            ("ip", n.ip.clone()),
            ("vmid", n.vmid.to_string()),
            ("mac", n.mac.to_uppercase()),
        ];
        for (what, value) in mine {
            let path = format!("nodes.{i}.{what}");
            if let Some(line) = seen.get(&(what, value.clone())) {
                let hint = format!("line {line} has it already");
                out.push(src.value(&path, format!("duplicate {what} `{value}`"), Some(hint)));
            } else {
                seen.insert((what, value), src.line(&path));
            }
        }
    }
}

fn check_addresses(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let Some((net, len)) = super::parse_cidr(&site.network.cidr) else {
        let hint = "for example `10.0.0.0/24`".to_owned();
        out.push(src.value("network.cidr", format!("`{}` is not a subnet", site.network.cidr), Some(hint)));
        return;
    };
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    let inside = |a: Ipv4Addr| u32::from(a) & mask == u32::from(net) & mask;
    let mut check = |path: String, text: &str, what: &str| match text.parse::<Ipv4Addr>() {
        Err(_) => out.push(src.value(&path, format!("{what} `{text}` is not an IPv4 address"), None)),
        Ok(a) if !inside(a) => {
            let hint = "the subnet is `network.cidr`".to_owned();
            out.push(src.value(&path, format!("{what} `{text}` is outside {}", site.network.cidr), Some(hint)));
        }
        Ok(_) => {}
    };
    check("network.gateway".to_owned(), &site.network.gateway, "gateway");
    for (i, n) in site.nodes.iter().enumerate() {
        check(format!("nodes.{i}.ip"), &n.ip, "address");
    }
}
