//! Names as the API machinery judges them: DNS labels and subdomains, keys and values of labels, names of ports and path
//! segments, each with its complaints. Grade: source (apimachinery's content checks).

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What judges a name: its complaints, none for a good one.
pub type Judge = fn(&str) -> Vec<String>;

fn edges(s: &str, ok: impl Fn(char) -> bool) -> bool {
    s.chars().next().is_some_and(&ok) && s.chars().next_back().is_some_and(ok)
}

fn low(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn part(s: &str) -> bool {
    edges(s, low) && s.chars().all(|c| low(c) || c == '-')
}

fn word(s: &str) -> bool {
    edges(s, |c| c.is_ascii_alphanumeric()) && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn at_most(s: &str, n: usize) -> Vec<String> {
    if s.len() > n { vec![format!("must be no more than {n} bytes")] } else { Vec::new() }
}

fn unless(good: bool, why: &str, mut out: Vec<String>) -> Vec<String> {
    if !good {
        out.push(why.to_owned());
    }
    out
}

/// A DNS label (RFC 1123).
#[must_use]
pub fn label(s: &str) -> Vec<String> {
    let why = if s.split('.').all(part) { "must not contain dots" } else { LABEL };
    unless(part(s), why, at_most(s, 63))
}

/// A DNS label that begins with a letter (RFC 1035).
#[must_use]
pub fn label_1035(s: &str) -> Vec<String> {
    unless(part(s) && !s.starts_with(|c: char| c.is_ascii_digit()), LABEL_1035, at_most(s, 63))
}

/// A DNS subdomain.
#[must_use]
pub fn subdomain(s: &str) -> Vec<String> {
    unless(s.split('.').all(part), SUBDOMAIN, at_most(s, 253))
}

/// A host of an Ingress: a subdomain, or one with `*.` before it.
#[must_use]
pub fn host(s: &str) -> Vec<String> {
    if !s.contains('*') {
        return subdomain(s);
    }
    let good = s.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(part));
    unless(good, WILDCARD, at_most(s, 253))
}

/// A key of a label: a name, with a DNS subdomain and `/` before it or without.
#[must_use]
pub fn key(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match s.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        ["", name] => {
            out.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            out.extend(subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            name
        }
        _ => {
            let more = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {KEY} {more}")];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    }
    out.extend(at_most(name, 63).into_iter().map(|m| format!("name part {m}")));
    if !word(name) {
        out.push(format!("name part {KEY}"));
    }
    out
}

/// A value of a label.
#[must_use]
pub fn value(s: &str) -> Vec<String> {
    unless(s.is_empty() || word(s), VALUE, at_most(s, 63))
}

/// A segment of a path.
#[must_use]
pub fn segment(s: &str) -> Vec<String> {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    ["/", "%"].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The name of a port.
#[must_use]
pub fn port(s: &str) -> Vec<String> {
    let mut out = if s.len() > 15 { vec!["must be no more than 15 characters".to_owned()] } else { Vec::new() };
    let mut say = |wrong: bool, why: &str| out.extend(wrong.then(|| why.to_owned()));
    say(
        s.is_empty() || !s.chars().all(|c| low(c) || c == '-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    say(!s.contains(|c: char| c.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    say(s.contains("--"), "must not contain consecutive hyphens");
    say(s.starts_with('-') || s.ends_with('-'), "must not begin or end with a hyphen");
    out
}

/// What is wrong with a name that is an IP address.
#[must_use]
pub fn address(s: &str) -> Vec<String> {
    super::ips::address(s, true)
}

/// Whether a text is a DNS label.
#[must_use]
pub fn is_label(s: &str) -> bool {
    label(s).is_empty()
}

/// A generated name's beginning: a last `-` is no mistake there.
#[must_use]
pub fn beginning(s: &str) -> String {
    match s.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut chars: Vec<char> = rest.chars().collect();
            chars.pop();
            chars.into_iter().collect::<String>() + "a"
        }
        _ => s.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_in_the_machinerys_words() {
        for (judge, good, bad, why) in [
            (label as Judge, "a-1", "a.b", "must not contain dots"),
            (label, "1a", "A", LABEL),
            (label_1035, "a1", "1a", LABEL_1035),
            (subdomain, "a.b-c", "a..b", SUBDOMAIN),
            (host, "*.a.b", "a*.b", WILDCARD),
            (value, "", "-a", VALUE),
            (segment, "a:b", "a/b", "may not contain '/'"),
            (port, "http-1", "80", "must contain at least one letter (a-z)"),
            (port, "a", "a--b", "must not contain consecutive hyphens"),
        ] {
            assert_eq!(judge(good), Vec::<String>::new(), "{good}");
            assert_eq!(judge(bad), [why], "{bad}");
        }
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(key("ex.io/a"), Vec::<String>::new());
        assert_eq!(key("/a"), ["prefix part must be non-empty"]);
        assert_eq!(key("a/"), ["name part must be non-empty".to_owned(), format!("name part {KEY}")]);
        assert!(key("a/b/c")[0].ends_with("with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"));
        assert_eq!((beginning("web-").as_str(), beginning("-").as_str()), ("wea", "-"));
    }
}
