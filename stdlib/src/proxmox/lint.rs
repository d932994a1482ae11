//! What Proxmox would refuse of a wanted machine, found before anything is sent. Pure.
use crate::core::error::{OpError, OpResult};
use crate::site::{Node, Site};
use crate::wire::pve::props;

use super::shape::owner_of;
use super::wanted::{Wanted, new_disk};

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Proxmox's option, for example `cpu`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The server's words.
    pub why: String,
    /// Key of the site file that decides it; a section's key has a dot.
    pub site_key: String,
}

/// Key of the site file behind an option of a VM.
#[must_use]
pub fn site_key(key: &str, why: &str) -> String {
    let (base, _) = props::numbered(key);
    let word = match base {
        "net" if why.contains(".bridge") => "network.bridge",
        "net" if why.contains(".tag") => "network.vlan",
        "net" => "mac",
        "ipconfig" if why.contains(".gw") => "network.gateway",
        "ipconfig" => "ip",
        "nameserver" => "network.dns",
        "searchdomain" => "network.domain",
        "ciuser" => "ssh.user",
        "sshkeys" => "ssh.authorized_keys",
        "tags" => "role",
        "hostpci" => "gpu.mapping",
        "scsi" if why.contains(".cache") => "cache",
        "scsi" if key == "scsi1" => "scratch_storage",
        "scsi" if key == "scsi2" => "data_storage",
        "scsi" => "disk_storage",
        "name" | "cores" | "cpu" | "memory" | "onboot" => base,
        _ => return format!("config.{key}"),
    };
    word.to_owned()
}

/// Everything that Proxmox would refuse.
#[must_use]
pub fn refusals(want: &Wanted) -> Vec<Refusal> {
    let mut all: Vec<(String, String)> = want.keys.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    all.extend(want.disks.iter().map(|d| (d.slot.clone(), new_disk(d))));
    all.extend(want.pci.iter().enumerate().map(|(i, p)| (format!("hostpci{i}"), p.clone())));
    let system: Vec<String> = want.system_options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    if !system.is_empty() {
        all.push(("scsi0".to_owned(), format!("store:1,{}", system.join(","))));
    }
    let bad = all.into_iter().filter_map(|(key, value)| {
        let why = match owner_of(&key).filter(|_| want.free_keys.contains(&key)) {
            Some(owner) => format!("is not set by `config`: it is decided by {owner}"),
            None => props::check(&key, &value).err()?.trim().to_owned(),
        };
        let site_key = if want.free_keys.contains(&key) { format!("config.{key}") } else { site_key(&key, &why) };
        Some(Refusal { key, value, why, site_key })
    });
    bad.collect()
}

/// Refuses what Proxmox would refuse, pointing at the site file.
pub(super) fn check(site: &Site, node: &Node, want: &Wanted) -> OpResult<()> {
    let all = refusals(want);
    let Some(first) = all.first() else { return Ok(()) };
    let mut e = OpError::invalid(format!("Proxmox would refuse `{}` = `{}`", first.key, first.value));
    e.causes = all.iter().map(|r| format!("{}: {}", r.key, r.why)).collect();
    let place = format!("{}:{}", site.path.display(), node.line);
    Err(e.hint(format!("correct `{}` of {} ({place}, or its role)", first.site_key, node.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::wanted::wanted;

    fn refused(from: &str, to: &str) -> Vec<Refusal> {
        let text = include_str!("../../../recipes/site.toml");
        assert!(text.contains(from), "{from}");
        let site = crate::site::load(std::path::Path::new("site.toml"), text).unwrap();
        let mut node = site.nodes[0].clone();
        match to.split_once('=') {
            Some(("cpu", v)) => node.shape.cpu = Some(v.to_owned()),
            Some(("cache", v)) => node.shape.cache = Some(v.to_owned()),
            Some(("mac", v)) => v.clone_into(&mut node.mac),
            _ => {}
        }
        refusals(&wanted(&site, &node, &[]))
    }

    #[test]
    fn the_default_site_is_accepted_and_mistakes_are_named_with_their_key() {
        assert_eq!(refused("[site]", ""), []);
        let bad = refused("[site]", "cpu=hots");
        assert_eq!((bad[0].key.as_str(), bad[0].site_key.as_str()), ("cpu", "cpu"));
        assert!(bad[0].why.contains("'hots' is not defined"), "{}", bad[0].why);
        assert_eq!(refused("[site]", "cache=fast")[0].site_key, "cache");
        assert_eq!(refused("[site]", "mac=FF:24:11:00:00:01")[0].site_key, "mac");
    }
}
