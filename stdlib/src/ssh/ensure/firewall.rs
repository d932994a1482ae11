//! The wanted firewall: what may come in, in an nftables table of its own. Tables of others (K3s, Docker) stay.
use std::net::IpAddr;

use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};
use super::specs::FirewallSpec;
use super::wanted::HEADER;
use crate::ssh::digest;

/// Where the rules lie for the next boot.
pub(super) const RULES: &str = "/etc/gpuhost/firewall.nft";
/// The unit that loads them.
pub(super) const UNIT: &str = "gpuhost-firewall.service";

/// Text of that unit.
pub(super) fn unit() -> String {
    format!(
        "[Unit]\nDescription=Firewall (gpuhost)\nWants=network-pre.target\nBefore=network-pre.target\n\
         DefaultDependencies=no\nAfter=local-fs.target\nConflicts=shutdown.target\nBefore=shutdown.target\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/sbin/nft -f {RULES}\n\
         ExecStop=/usr/sbin/nft delete table inet gpuhost\n\n[Install]\nWantedBy=sysinit.target\n"
    )
}

/// Loaded rules.
pub(super) struct Firewall {
    rules: Vec<String>,
}

impl Firewall {
    /// Reads the map; `ssh` is the port that this very connection uses, which stays open whatever the map says.
    ///
    /// # Errors
    /// `invalid` naming the rule at fault.
    pub(super) fn new(spec: &FirewallSpec, ssh: u16) -> OpResult<Self> {
        let mut rules = vec![format!("tcp dport {ssh} accept")];
        for interface in &spec.interfaces {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
            if interface.is_empty() || interface.len() > 15 || !interface.bytes().all(plain) {
                return Err(OpError::invalid(format!("option `interfaces`: `{interface}` is no interface name")));
            }
            rules.push(format!("iifname \"{interface}\" accept"));
        }
        for net in &spec.allow_from {
            rules.push(format!("{} accept", from(net)?));
        }
        for entry in &spec.allow {
            rules.push(allowed(entry)?);
        }
        Ok(Firewall { rules })
    }

    /// The chain's name tells which rules are loaded.
    fn chain(&self) -> String {
        format!("input_{}", &digest(self.rules.join("\n").as_bytes())[..12])
    }

    /// The file that nft loads: it takes the place of the old table in one step.
    pub(super) fn text(&self) -> String {
        let rules: String = self.rules.iter().map(|r| format!("        {r}\n")).collect();
        format!(
            "{HEADER}\ntable inet gpuhost\ndelete table inet gpuhost\ntable inet gpuhost {{\n    chain {} {{\n        \
             type filter hook input priority filter; policy drop;\n        ct state established,related accept\n        \
             ct state invalid drop\n        iif lo accept\n        meta l4proto {{ icmp, ipv6-icmp }} accept\n\
             {rules}    }}\n}}\n",
            self.chain()
        )
    }
}

/// `ip saddr 10.0.0.0/16` for a network.
fn from(net: &str) -> OpResult<String> {
    let wrong = || OpError::invalid(format!("`{net}` is no network such as `10.0.0.0/16`"));
    let (address, bits) = net.split_once('/').unwrap_or((net, ""));
    let ip: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    if !bits.is_empty() && !bits.parse::<u8>().is_ok_and(|b| b <= most) {
        return Err(wrong());
    }
    Ok(format!("{} saddr {net}", if ip.is_ipv4() { "ip" } else { "ip6" }))
}

/// `6443/tcp`, `30000-32767/udp`, `8472/udp from 10.0.0.0/16` as a rule.
fn allowed(entry: &str) -> OpResult<String> {
    let wrong = || {
        OpError::invalid(format!("option `allow`: `{entry}` is not understood"))
            .hint("write `6443/tcp`, `30000-32767/tcp` or `8472/udp from 10.0.0.0/16`")
    };
    let words: Vec<&str> = entry.split_whitespace().collect();
    let (what, net) = match words.as_slice() {
        [what] => (*what, None),
        [what, "from", net] => (*what, Some(*net)),
        _ => return Err(wrong()),
    };
    let (ports, protocol) = what.split_once('/').ok_or_else(wrong)?;
    let port = |p: &str| p.parse::<u16>().ok().filter(|p| *p > 0);
    let fits = match ports.split_once('-') {
        Some((a, b)) => port(a).zip(port(b)).is_some_and(|(a, b)| a <= b),
        None => port(ports).is_some(),
    };
    if !fits || !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let source = net.map(from).transpose()?.map_or(String::new(), |f| format!("{f} "));
    Ok(format!("{source}{protocol} dport {ports} accept"))
}

impl Item for Firewall {
    fn what(&self) -> String {
        "firewall".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Firewall
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!(
            "if nft list chain inet gpuhost {} >/dev/null 2>&1; then echo loaded\n\
             elif nft list table inet gpuhost >/dev/null 2>&1; then echo others; else echo absent; fi",
            self.chain()
        ))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let before = match found.trim() {
            "loaded" => return Ok(None),
            "others" => text("other rules"),
            _ => None,
        };
        let part = Part::new(self.what(), before, text(self.rules.join("; ")));
        Ok(Some(Diff::one(part, format!("nft -f {}", quote(RULES)))))
    }
}

/// No rules of ours loaded.
pub(super) struct NoFirewall;

impl Item for NoFirewall {
    fn what(&self) -> String {
        "firewall".to_owned()
    }
    fn phase(&self) -> Phase {
        // After its service: stopping that removes the table already.
        Phase::Commands
    }
    fn probe(&self) -> Probe {
        Probe::Shell(
            "if nft list table inet gpuhost >/dev/null 2>&1; then echo loaded; else echo absent; fi".to_owned(),
        )
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let act = "if nft list table inet gpuhost >/dev/null 2>&1; then nft delete table inet gpuhost; fi";
        let part = Part::new(self.what(), text("loaded"), text("off"));
        Ok((found.trim() == "loaded").then(|| Diff::one(part, act)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(allow: &[&str], allow_from: &[&str], interfaces: &[&str]) -> FirewallSpec {
        let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        FirewallSpec { allow: list(allow), allow_from: list(allow_from), interfaces: list(interfaces) }
    }

    #[test]
    fn our_own_way_in_stays_open() {
        let f = Firewall::new(&spec(&[], &[], &[]), 2222).unwrap();
        assert_eq!(f.rules, ["tcp dport 2222 accept"]);
        assert!(f.text().contains("        tcp dport 2222 accept\n    }\n}\n"));
    }

    #[test]
    fn rules_are_read_or_refused() {
        let f = Firewall::new(&spec(&["6443/tcp", "8472/udp from 10.0.0.0/16"], &["fd00::/8"], &["cni0"]), 22).unwrap();
        assert_eq!(
            f.rules[1..],
            [
                "iifname \"cni0\" accept",
                "ip6 saddr fd00::/8 accept",
                "tcp dport 6443 accept",
                "ip saddr 10.0.0.0/16 udp dport 8472 accept"
            ]
        );
        for bad in
            ["6443", "0/tcp", "70000/tcp", "9-5/tcp", "1/icmp", "1/tcp to 10.0.0.1", "1/tcp from x", "1/tcp; drop"]
        {
            assert!(Firewall::new(&spec(&[bad], &[], &[]), 22).is_err(), "{bad}");
        }
        assert!(Firewall::new(&spec(&[], &["10.0.0.0/33"], &[]), 22).is_err());
        assert!(Firewall::new(&spec(&[], &[], &["a\" accept"]), 22).is_err());
    }

    #[test]
    fn other_rules_have_another_name() {
        let a = Firewall::new(&spec(&["1/tcp"], &[], &[]), 22).unwrap();
        let b = Firewall::new(&spec(&["2/tcp"], &[], &[]), 22).unwrap();
        assert_ne!(a.chain(), b.chain());
        assert_eq!(a.diff("loaded\n", &Changed::new()).unwrap(), None);
        assert_eq!(a.diff("others\n", &Changed::new()).unwrap().unwrap().parts[0].before, text("other rules"));
    }
}
