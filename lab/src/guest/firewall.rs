//! What the packet filter of a machine does to connections between machines: the rules that name a TCP port, in their
//! order, then the policy of their chain. Other rules are listed and let everything through. Grade: docs (nft(8)).
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

/// Whether a rule drops a TCP port, or lets it through; `None` when it is about something else.
fn decides(rule: &str, port: u16) -> Option<bool> {
    let rule = rule.replace([',', '{', '}'], " ");
    let words: Vec<&str> = rule.split_whitespace().filter(|w| *w != "counter").collect();
    let at = words.windows(2).position(|w| w == ["tcp", "dport"])?;
    let end = words.iter().position(|w| matches!(*w, "drop" | "reject" | "accept"))?;
    let named = words.get(at + 2..end)?.iter().any(|w| w.parse() == Ok(port));
    // dropped for some senders only: not for those that ask here
    let pure = at == 0 && words[2..end].iter().all(|w| w.parse::<u16>().is_ok());
    match words[end] {
        "accept" => named.then_some(false),
        _ => (named && pure).then_some(true),
    }
}

/// Whether a table drops what goes this way to a TCP port.
fn table_drops(table: &str, way: Way, port: u16) -> bool {
    table.split("chain ").skip(1).filter(|c| c.contains(way.hook())).any(|chain| {
        let mut rules = chain.split(['\n', ';']).map(str::trim);
        rules.find_map(|r| decides(r, port)).unwrap_or_else(|| chain.contains("policy drop"))
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
}
