//! What a listing of `nft list ruleset` does to a TCP port: the rules in their order, then the policy of their chain. No I/O.

/// Lists the ruleset with its handles.
pub(super) const LIST: &str = "nft -a list ruleset 2>/dev/null";

/// Chains that call each other deeper than this are not followed.
const DEEPEST: u8 = 16;

/// What keeps a port from getting an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Family and name.
    pub(super) table: String,
    /// Its chain.
    pub(super) chain: String,
    /// By which `nft` deletes it; a policy has none, and some listings have none.
    pub(super) handle: Option<u32>,
    /// The rule, or the policy.
    pub(super) text: String,
    /// It is about this port and no other.
    own: bool,
    /// Its table holds nothing else.
    lone: bool,
}

impl Rule {
    /// The command that lets the port through and changes nothing else.
    pub(super) fn open(&self, port: u16) -> String {
        let Self { table, chain, .. } = self;
        match self.handle {
            Some(handle) if self.own => format!("sudo nft delete rule {table} {chain} handle {handle}"),
            None if self.own && self.lone => format!("sudo nft delete table {table}"),
            _ => format!("sudo nft insert rule {table} {chain} tcp dport {port} accept"),
        }
    }

    /// Where it is and what it says.
    pub(super) fn shown(&self) -> String {
        format!("chain {} {}: {}", self.table, self.chain, self.text)
    }
}

/// A chain, a set or a map of a table, line by line.
#[derive(Debug, Default)]
struct Block {
    table: String,
    head: String,
    lines: Vec<String>,
}

impl Block {
    /// The name of a chain.
    fn chain(&self) -> Option<&str> {
        self.head.strip_prefix("chain ").map(str::trim)
    }

    /// Whether it filters IPv4 packets at this hook.
    fn is_at(&self, hook: &str) -> bool {
        let filters = |l: &String| {
            let words: Vec<&str> = l.split_whitespace().collect();
            words.starts_with(&["type", "filter"]) && words.windows(2).any(|w| w == ["hook", hook])
        };
        let family = self.table.split(' ').next().unwrap_or_default();
        self.chain().is_some() && matches!(family, "ip" | "inet") && self.lines.iter().any(filters)
    }

    fn rules(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str).filter(|l| !l.starts_with("type ") && !l.starts_with("policy "))
    }
}

/// Reads a listing; one that a person typed on few lines, too.
fn blocks(ruleset: &str) -> Vec<Block> {
    let mut out: Vec<Block> = Vec::new();
    let (mut table, mut text) = (String::new(), String::new());
    // in a table: 1, in one of its blocks: 2; and the braces of a rule's own sets
    let (mut depth, mut inner, mut quoted) = (0_u32, 0_u32, false);
    for c in ruleset.chars().chain(['\n']) {
        quoted ^= c == '"';
        match c {
            '{' if !quoted && depth < 2 => {
                let head = text.trim();
                if depth == 0 {
                    table = head.strip_prefix("table ").unwrap_or(head).trim().to_owned();
                } else {
                    out.push(Block { table: table.clone(), head: head.to_owned(), lines: Vec::new() });
                }
                depth += 1;
                text.clear();
            }
            '{' if !quoted => {
                inner += 1;
                text.push(c);
            }
            '}' if !quoted && inner > 0 => {
                inner -= 1;
                text.push(c);
            }
            '}' | ';' | '\n' if !quoted && inner == 0 => {
                let said = text.trim();
                if depth == 2
                    && !said.is_empty()
                    && !said.starts_with('#')
                    && let Some(block) = out.last_mut()
                {
                    block.lines.push(said.to_owned());
                }
                text.clear();
                if c == '}' {
                    depth = depth.saturating_sub(1);
                }
            }
            _ => text.push(c),
        }
    }
    out
}

/// What a rule does with the packets of a port.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// Lets them through, at least some.
    Accepts,
    /// Drops all of them.
    Drops,
    /// Drops some of them.
    DropsSome,
    /// Leaves the chain.
    Returns,
    /// Calls another chain.
    Calls(String),
    /// It is about something else.
    Nothing,
}

/// The text of a rule without handle and comment.
fn bare(rule: &str) -> &str {
    let text = rule.split(" # handle ").next().unwrap_or_default();
    text.split(" comment \"").next().unwrap_or_default().trim()
}

/// Words of a rule; neither its counters nor the braces of its sets.
fn words(rule: &str) -> Vec<String> {
    let text = bare(rule).replace([',', '{', '}'], " ");
    let mut out: Vec<String> = Vec::new();
    let mut all = text.split_whitespace().peekable();
    while let Some(word) = all.next() {
        if word == "counter" {
            if all.peek() == Some(&"packets") {
                // packets N bytes N
                all.nth(3);
            }
        } else if !word.starts_with('#') {
            out.push(word.to_owned());
        }
    }
    out
}

/// First and last of `6443` or `6000-7000`.
fn span(word: &str) -> Option<(u16, u16)> {
    let (from, to) = word.split_once('-').unwrap_or((word, word));
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// What stands before the verdict of a rule: the ports that it names, if it names any, and its other conditions.
struct Asks<'a> {
    ports: Option<Vec<(u16, u16)>>,
    not: bool,
    others: Vec<&'a str>,
}

fn asks<'a>(before: &[&'a str]) -> Asks<'a> {
    let Some(at) = before.windows(2).position(|w| matches!(w, ["tcp" | "th", "dport"])) else {
        return Asks { ports: None, not: false, others: without_protocol(before) };
    };
    let mut rest = &before[at + 2..];
    let not = rest.first() == Some(&"!=");
    if not {
        rest = &rest[1..];
    }
    let ports: Vec<(u16, u16)> = rest.iter().map_while(|w| span(w)).collect();
    let others: Vec<&str> = before[..at].iter().chain(&rest[ports.len()..]).copied().collect();
    Asks { ports: Some(ports), not, others: without_protocol(&others) }
}

fn without_protocol<'a>(conditions: &[&'a str]) -> Vec<&'a str> {
    conditions.strip_prefix(&["meta", "l4proto", "tcp"]).unwrap_or(conditions).to_vec()
}

fn says(rule: &str, port: u16) -> Says {
    let words = words(rule);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let verdict = |w: &&str| matches!(*w, "accept" | "drop" | "reject" | "return" | "jump" | "goto");
    let Some(end) = words.iter().rposition(verdict) else { return Says::Nothing };
    let asks = asks(&words[..end]);
    let all = asks.others.is_empty();
    let meant = match &asks.ports {
        Some(ports) => !ports.is_empty() && asks.not != ports.iter().any(|(a, b)| (*a..=*b).contains(&port)),
        None => all,
    };
    match words[end] {
        _ if !meant => Says::Nothing,
        "accept" => Says::Accepts,
        "drop" | "reject" if all => Says::Drops,
        "drop" | "reject" => Says::DropsSome,
        "return" if all => Says::Returns,
        "jump" | "goto" if all => words.get(end + 1).map_or(Says::Nothing, |to| Says::Calls((*to).to_owned())),
        _ => Says::Nothing,
    }
}

/// A rule in its chain.
type Found<'a> = (&'a Block, &'a str);

/// How a packet leaves a chain.
enum End<'a> {
    Accepted,
    Dropped(Found<'a>),
    /// No rule decided; one may have dropped some.
    Open(Option<Found<'a>>),
}

fn walk<'a>(all: &'a [Block], at: &'a Block, port: u16, depth: u8) -> End<'a> {
    let mut some = None;
    for rule in at.rules() {
        match says(rule, port) {
            Says::Accepts => return End::Accepted,
            Says::Drops => return End::Dropped((at, rule)),
            Says::DropsSome => some = some.or(Some((at, rule))),
            Says::Returns => break,
            Says::Calls(name) if depth < DEEPEST => {
                let called = all.iter().find(|b| b.table == at.table && b.chain() == Some(name.as_str()));
                match called.map(|b| walk(all, b, port, depth + 1)) {
                    Some(End::Open(also)) => some = some.or(also),
                    Some(end) => return end,
                    None => {}
                }
            }
            Says::Calls(_) | Says::Nothing => {}
        }
    }
    End::Open(some)
}

/// The rule, or the policy, of a hook (`input`, `output`) that drops what goes to a TCP port; one that drops all before one
/// that drops some.
pub(super) fn dropping(ruleset: &str, hook: &str, port: u16) -> Option<Rule> {
    let all = blocks(ruleset);
    let rule = |(at, text): Found| {
        let words = words(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let asks = asks(&words);
        Rule {
            table: at.table.clone(),
            chain: at.chain().unwrap_or_default().to_owned(),
            handle: text.rsplit_once("# handle ").and_then(|(_, n)| n.trim().parse().ok()),
            text: bare(text).to_owned(),
            own: !asks.not && asks.ports.is_some_and(|p| p == [(port, port)]),
            lone: all.iter().filter(|b| b.table == at.table).count() == 1 && at.rules().count() == 1,
        }
    };
    let mut some = None;
    for chain in all.iter().filter(|b| b.is_at(hook)) {
        match walk(&all, chain, port, 0) {
            End::Accepted => {}
            End::Dropped(found) => return Some(rule(found)),
            End::Open(also) => {
                if let Some(policy) = chain.lines.iter().find(|l| l.starts_with("policy drop")) {
                    return Some(Rule { own: false, lone: false, ..rule((chain, policy.as_str())) });
                }
                some = some.or(also);
            }
        }
    }
    some.map(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain with rules, as a listing shows it.
    fn chain(hook: &str, policy: &str, rules: &str) -> String {
        format!(
            "table inet t {{\n\tchain c {{\n\t\ttype filter hook {hook} priority filter; policy {policy};\n\t\t{rules}\n\t}}\n}}\n"
        )
    }

    fn text(policy: &str, rules: &str) -> Option<String> {
        dropping(&chain("input", policy, rules), "input", 6443).map(|r| r.text)
    }

    #[test]
    fn rules_decide_in_their_order_and_then_the_policy() {
        assert_eq!(text("accept", "tcp dport 6443 drop").as_deref(), Some("tcp dport 6443 drop"));
        assert_eq!(text("accept", "tcp dport 6443 accept\n\t\ttcp dport 6443 drop"), None);
        assert_eq!(text("drop", "tcp dport { 22, 6443 } accept"), None);
        assert_eq!(text("drop", "tcp dport 22 accept").as_deref(), Some("policy drop"));
        assert_eq!(
            text("accept", "tcp dport 22 accept\n\t\tcounter packets 3 bytes 9 drop").as_deref(),
            Some("counter packets 3 bytes 9 drop")
        );
        assert_eq!(text("accept", "ip saddr 10.0.0.9 tcp dport 6443 drop\n\t\ttcp dport 6443 accept"), None);
        assert!(text("accept", "iifname \"eth0\" tcp dport 6443 drop").is_some());
        assert_eq!(dropping(&chain("output", "drop", ""), "input", 6443), None);
        assert_eq!(dropping(&chain("input", "drop", "").replace("inet", "ip6"), "input", 6443), None);
    }

    #[test]
    fn ports_are_whole_numbers_sets_and_ranges() {
        for other in
            ["tcp dport 16443 drop", "tcp dport 64430-64439 drop", "udp dport 6443 drop", "tcp sport 6443 drop"]
        {
            assert_eq!(text("accept", other), None, "{other}");
        }
        for this in [
            "tcp dport { 80, 6000-7000 } drop",
            "tcp dport != 22 drop",
            "tcp dport 6443 counter packets 1 bytes 60 reject with tcp reset",
        ] {
            assert!(text("accept", this).is_some(), "{this}");
        }
    }

    #[test]
    fn chains_that_are_called_decide_too() {
        let called = |rule: &str| {
            format!(
                "table ip filter {{ # handle 1\n\tchain INPUT {{ # handle 1\n\t\ttype filter hook input priority filter; policy drop;\n\t\tct state invalid counter packets 0 bytes 0 jump off # handle 8\n\t\tcounter packets 0 bytes 0 jump user # handle 9\n\t}}\n\n\tchain off {{ # handle 2\n\t\tdrop # handle 3\n\t}}\n\n\tchain user {{ # handle 4\n\t\t{rule} # handle 5\n\t}}\n}}\n"
            )
        };
        assert_eq!(dropping(&called("tcp dport 2049 counter packets 0 bytes 0 accept"), "input", 2049), None);
        let rule = dropping(&called("tcp dport 2049 drop comment \"no; {\""), "input", 2049).unwrap();
        assert_eq!((rule.chain.as_str(), rule.handle, rule.text.as_str()), ("user", Some(5), "tcp dport 2049 drop"));
        assert_eq!(dropping(&called("return"), "input", 2049).unwrap().text, "policy drop");
    }

    #[test]
    fn the_command_opens_the_port_and_nothing_else() {
        let open = |rules: &str| dropping(rules, "input", 2049).unwrap().open(2049);
        let insert = "sudo nft insert rule inet t c tcp dport 2049 accept";
        let with = |rule: &str| open(&chain("input", "accept", rule));
        assert_eq!(with("tcp dport 2049 drop # handle 7"), "sudo nft delete rule inet t c handle 7");
        assert_eq!(with("tcp dport 2049 drop"), "sudo nft delete table inet t");
        assert_eq!(with("tcp dport 22 accept\n\t\ttcp dport 2049 drop"), insert);
        assert_eq!(with("tcp dport { 111, 2049 } drop # handle 7"), insert);
        assert_eq!(with("drop # handle 7"), insert);
        assert_eq!(open(&chain("input", "drop", "tcp dport 22 accept # handle 7")), insert);
        let typed = "table inet t {\n\tchain c { type filter hook input priority 0; tcp dport 2049 drop; }\n}\n";
        assert_eq!(open(typed), "sudo nft delete table inet t");
    }
}
