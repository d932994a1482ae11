//! What the packet filter of a machine does to connections between machines: the rules that name a TCP port, those that
//! take or drop everything, and with the policy `drop` those that take an address, in their order; then the policy of
//! their chain. Whose address it is is not looked at. Other rules are listed and do nothing. Grade: docs (nft(8)).
use super::state::Guest;
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

/// Whether a rule drops a TCP port, or lets it through; `None` when it is about something else. `shut`: what no
/// rule takes is dropped.
fn decides(rule: &str, port: u16, shut: bool) -> Option<bool> {
    let rule = rule.replace([',', '{', '}'], " ");
    let words: Vec<&str> = rule.split_whitespace().filter(|w| *w != "counter").collect();
    let end = words.iter().position(|w| matches!(*w, "drop" | "reject" | "accept"))?;
    let (matches, drops) = (&words[..end], words[end] != "accept");
    if matches.is_empty() {
        return Some(drops);
    }
    let Some(at) = matches.windows(2).position(|w| w == ["tcp", "dport"]) else {
        return (shut && !drops && by_address(matches)).then_some(false);
    };
    let ports = &matches[at + 2..];
    let named = ports.iter().any(|w| covers(w, port) == Some(true));
    // dropped for some senders only: not for those that ask here
    let pure = at == 0 && ports.iter().all(|w| covers(w, port).is_some());
    (named && (pure || !drops)).then_some(drops)
}

/// Whether a word of a rule, a port or a range of them, has the port; `None` for other words.
fn covers(word: &str, port: u16) -> Option<bool> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    Some((first..=last).contains(&port))
}

/// Whether a rule asks for nothing but IPv4 addresses.
fn by_address(matches: &[&str]) -> bool {
    let address = |w: &&str| w.starts_with(|c: char| c == '@' || c.is_ascii_digit());
    matches!(matches, ["ip", "saddr" | "daddr", those @ ..] if those.iter().all(address))
}

/// Whether a table drops what goes this way to a TCP port.
fn table_drops(table: &str, way: Way, port: u16) -> bool {
    table.split("chain ").skip(1).filter(|c| c.contains(way.hook())).any(|chain| {
        let shut = chain.contains("policy drop");
        chain.split(['\n', ';']).find_map(|r| decides(r, port, shut)).unwrap_or(shut)
    })
}

/// Whether the guest's own filter keeps a TCP port from getting an answer.
#[must_use]
pub fn drops(g: &Guest, way: Way, port: u16) -> bool {
    g.nft.values().any(|table| table_drops(table, way, port))
}

/// Whether the filter of a machine drops a TCP port.
#[must_use]
pub fn closed(w: &World, vmid: u32, way: Way, port: u16) -> bool {
    w.guests.get(&vmid).is_some_and(|g| drops(g, way, port))
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
        assert!(table_drops(out, Way::Out, 6443) && !table_drops(out, Way::In, 6443));
        assert!(!table_drops(out, Way::Out, 443) && !table_drops(some, Way::In, 6443));
        assert!(table_drops(many, Way::In, 6443) && table_drops(many, Way::In, 80));
    }

    #[test]
    fn the_first_rule_that_names_the_port_decides_then_the_policy() {
        let with = |rules: &str| {
            let chain = format!("chain input {{ type filter hook input priority 0; policy accept;\n{rules} }}");
            table_drops(&chain, Way::In, 2049)
        };
        assert!(with("tcp dport 2049 drop") && with("tcp dport { 111, 2049 } drop;"));
        assert!(!with("tcp dport 22 drop") && !with("tcp dport 2049 accept\ntcp dport 2049 drop"));
        let closed = "chain input { type filter hook input priority 0; policy drop; tcp dport 22 accept }";
        assert!(table_drops(closed, Way::In, 2049) && !table_drops(closed, Way::In, 22));
    }

    #[test]
    fn ranges_of_ports_are_read() {
        let chain = |policy: &str, rules: &str| {
            format!("chain input {{\n type filter hook input priority 0; policy {policy};\n {rules}\n}}")
        };
        let open = chain("drop", "ct state established,related accept\n iif lo accept\n tcp dport 6443-6445 accept");
        let drops = |table: &str, port: u16| table_drops(table, Way::In, port);
        assert!(!drops(&open, 6443) && !drops(&open, 6445) && drops(&open, 6446) && drops(&open, 6442));
        let set = chain("accept", "tcp dport { 22, 6000-7000 } drop");
        assert!(drops(&set, 22) && drops(&set, 6443) && !drops(&set, 7001));
    }

    #[test]
    fn rules_without_a_port_take_or_drop_everything() {
        let drops = |policy: &str, rules: &str| {
            let chain = format!("chain input {{\n type filter hook input priority 0; policy {policy};\n {rules}\n}}");
            table_drops(&chain, Way::In, 6443)
        };
        for rule in ["ip saddr 10.0.0.0/24 accept", "ip saddr { 10.0.0.1, 10.0.0.2 } counter accept", "accept"] {
            assert!(!drops("drop", rule), "{rule}");
        }
        for rule in [
            "ct state established,related accept",
            "iif lo accept",
            "iifname \"cni0\" accept",
            "ip6 saddr fd00::/8 accept",
            "ip saddr 10.0.0.0/24 udp dport 6443 accept",
            "meta l4proto { icmp, ipv6-icmp } accept",
        ] {
            assert!(drops("drop", rule), "{rule}");
        }
        assert!(drops("drop", "tcp dport 6443 drop\n ip saddr 10.0.0.0/24 accept"));
        assert!(drops("accept", "tcp dport 22 accept\n counter drop") && !drops("accept", "accept\n drop"));
        assert!(drops("accept", "ip saddr 10.0.0.9 accept\n tcp dport 6443 drop"));
    }
}
