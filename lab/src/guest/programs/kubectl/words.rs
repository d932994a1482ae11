//! The words behind a kubectl command.

/// Options that every command takes.
const ALWAYS: &str = "namespace/n= kubeconfig= context= v= request-timeout=";

/// Words as kubectl reads them.
#[derive(Debug, Default)]
pub(in super::super) struct Words {
    /// Operands.
    pub bare: Vec<String>,
    /// What follows `--`.
    pub rest: Vec<String>,
    given: Vec<(String, String)>,
}

/// An option that is known: its name, its letter, and whether it takes a value.
struct Known<'a> {
    name: &'a str,
    letter: Option<char>,
    value: bool,
}

fn known(text: &str) -> impl Iterator<Item = Known<'_>> {
    text.split_whitespace().map(|w| {
        let value = w.ends_with('=');
        let w = w.trim_end_matches('=');
        let (name, letter) = w.split_once('/').map_or((w, None), |(n, l)| (n, l.chars().next()));
        Known { name, letter, value }
    })
}

impl Words {
    /// Reads the words; `options` are names with their letter and a `=` when they take a value (`output/o= watch/w`).
    /// `None` for an option that is not among them.
    pub fn read(words: &[String], options: &str) -> Option<Words> {
        let all: Vec<Known<'_>> = known(ALWAYS).chain(known(options)).collect();
        let mut out = Words::default();
        let mut words = words.iter();
        while let Some(w) = words.next() {
            if w == "--" {
                out.rest = words.by_ref().cloned().collect();
            } else if let Some(long) = w.strip_prefix("--") {
                let (name, inline) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
                let k = all.iter().find(|k| k.name == name)?;
                let value = match inline {
                    Some(v) => v,
                    None if k.value => words.next()?.clone(),
                    None => "true".to_owned(),
                };
                out.given.push((name.to_owned(), value));
            } else if w.len() > 1 && w.starts_with('-') {
                let mut letters = w[1..].chars();
                while let Some(l) = letters.next() {
                    let k = all.iter().find(|k| k.letter == Some(l))?;
                    let rest = letters.as_str();
                    let value = match (k.value, rest) {
                        (false, _) => "true".to_owned(),
                        (true, "") => words.next()?.clone(),
                        (true, rest) => rest.trim_start_matches('=').to_owned(),
                    };
                    out.given.push((k.name.to_owned(), value));
                    if k.value {
                        break;
                    }
                }
            } else {
                out.bare.push(w.clone());
            }
        }
        Some(out)
    }

    /// The last value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().rfind(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of an option, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v == "true")
    }

    /// Whether a switch that is on by itself was put off.
    pub fn off(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v == "false")
    }

    /// The namespace that is meant.
    pub fn namespace(&self) -> String {
        self.value("namespace").unwrap_or("default").to_owned()
    }

    /// A duration option in milliseconds; 0 and nothing for one that waits as long as it takes.
    pub fn wait_ms(&self, name: &str, default: u64) -> Option<u64> {
        let text = self.value(name);
        text.map_or(Some(default), super::super::duration)
    }
}

/// The words with options that stand before the command put behind it.
pub(super) fn command_first(words: &[String]) -> Vec<String> {
    let mut at = 0;
    while let Some(w) = words.get(at).filter(|w| w.starts_with('-')) {
        let long = w.trim_start_matches("--");
        let takes =
            known(ALWAYS).any(|k| k.value && (k.name == long || k.letter.is_some_and(|l| *w == format!("-{l}"))));
        at += if takes { 2 } else { 1 };
    }
    let at = at.min(words.len());
    let verb = words.get(at).cloned();
    let rest = words.get(at + 1..).unwrap_or_default();
    // What follows `--` is not kubectl's.
    let end = rest.iter().position(|w| w == "--").unwrap_or(rest.len());
    let (own, theirs) = rest.split_at(end);
    verb.into_iter()
        .chain(own.iter().cloned())
        .chain(words[..at].iter().cloned())
        .chain(theirs.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(t: &str) -> Vec<String> {
        t.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_in_all_their_forms() {
        let w = Words::read(
            &words("pod a -n x -oyaml --wait=false -Af f.yaml -- ls -l"),
            "output/o= wait all-namespaces/A filename/f=",
        );
        let w = w.unwrap();
        assert_eq!(w.bare, ["pod", "a"]);
        assert_eq!(
            (w.namespace().as_str(), w.value("output"), w.value("filename")),
            ("x", Some("yaml"), Some("f.yaml"))
        );
        assert!(w.off("wait") && w.on("all-namespaces"));
        assert_eq!(w.rest, ["ls", "-l"]);
        assert!(Words::read(&words("pod --odd"), "").is_none());
        assert!(Words::read(&words("pod -n"), "").is_none());
    }

    #[test]
    fn options_before_the_command_belong_to_it() {
        assert_eq!(command_first(&words("-n x exec p -- sh -c ls")), words("exec p -n x -- sh -c ls"));
        assert_eq!(command_first(&words("--namespace=x get pods")), words("get pods --namespace=x"));
        assert_eq!(command_first(&words("get pods")), words("get pods"));
    }
}
