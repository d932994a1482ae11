//! What the packet filter of a machine does to connections between machines: rules that drop or reject a TCP port,
//! whoever is at the other end. Other rules are listed and let everything through. Grade: docs (nftables).
use crate::world::World;

/// Which way a packet goes, seen from the machine with the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To it.
    In,
    /// From it.
    Out,
}

impl Way {
    fn hook(self) -> &'static str {
        match self {
            Way::In => "hook input",
            Way::Out => "hook output",
        }
    }
}

/// Whether a rule is about this port alone and lets nothing through.
fn is_drop(rule: &str, port: u16) -> bool {
    let rule = rule.replace([',', '{', '}'], " ");
    let words: Vec<&str> = rule.split_whitespace().filter(|w| *w != "counter").collect();
    let Some(rest) = words.strip_prefix(&["tcp", "dport"]) else { return false };
    let end = rest.iter().position(|w| matches!(*w, "drop" | "reject"));
    end.is_some_and(|n| {
        rest[..n].iter().any(|w| w.parse() == Ok(port)) && rest[..n].iter().all(|w| w.parse::<u16>().is_ok())
    })
}

/// Whether tables drop what goes this way to a TCP port.
fn drops(tables: &[&str], way: Way, port: u16) -> bool {
    let chains = tables.iter().flat_map(|t| t.split("chain ").skip(1));
    chains.filter(|c| c.contains(way.hook())).any(|c| c.split(['\n', ';']).any(|rule| is_drop(rule, port)))
}

/// Whether the machine's own filter drops a TCP port.
#[must_use]
pub fn closed(w: &World, vmid: u32, way: Way, port: u16) -> bool {
    w.guests.get(&vmid).is_some_and(|g| {
        let tables: Vec<&str> = g.nft.values().map(String::as_str).collect();
        drops(&tables, way, port)
    })
}

/// Whether a filter on one of the two machines keeps `from` off a TCP port of `to`.
#[must_use]
pub fn between(w: &World, from: u32, to: u32, port: u16) -> bool {
    from != to && (closed(w, from, Way::Out, port) || closed(w, to, Way::In, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_by_hook_and_port() {
        let out =
            "chain output {\n type filter hook output priority 0; policy accept;\n tcp dport 6443 counter drop\n}";
        let many =
            "chain input {\n type filter hook input priority 0;\n tcp dport { 80, 6443 } reject with tcp reset\n}";
        let some = "chain input {\n type filter hook input priority 0;\n ip saddr 10.0.0.9 tcp dport 6443 drop\n tcp dport 6443 accept\n}";
        assert!(drops(&[out], Way::Out, 6443) && !drops(&[out], Way::In, 6443) && !drops(&[out], Way::Out, 443));
        assert!(drops(&[many], Way::In, 6443) && drops(&[many], Way::In, 80) && !drops(&[some], Way::In, 6443));
    }
}
