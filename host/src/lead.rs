//! Commands that a run names on the terminal lead to where it takes place: on the lab they say `--lab`, and all
//! name its site file.
use crate::args::RunArgs;

/// The flags that lead there.
#[derive(Debug, Clone, Default)]
pub struct Lead {
    flags: Vec<(&'static str, String)>,
}

impl Lead {
    /// Where `args` leads.
    #[must_use]
    pub fn of(args: &RunArgs) -> Self {
        Self::new(args.site.as_deref(), args.lab)
    }

    /// To a site, or to its lab.
    #[must_use]
    pub fn new(site: Option<&std::path::Path>, lab: bool) -> Self {
        let mut flags = Vec::new();
        if let Some(s) = site {
            flags.push(("--site", format!(" --site {}", word(&s.display().to_string()))));
        }
        if lab {
            flags.push(("--lab", " --lab".to_owned()));
        }
        Lead { flags }
    }

    /// `text` with the flags in each command that does not have them yet.
    #[must_use]
    pub fn show(&self, text: &str) -> String {
        if self.flags.is_empty() {
            return text.to_owned();
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(i) = rest.find("gpuhost ") {
            let (before, after) = rest.split_at(i + "gpuhost ".len());
            out.push_str(before);
            let command = after.split(['`', '\n', '"']).next().unwrap_or_default();
            let cut = place(command);
            out.push_str(&after[..cut]);
            if cut > 0 {
                self.flags.iter().filter(|(name, _)| !command.contains(name)).for_each(|(_, f)| out.push_str(f));
            }
            rest = &after[cut..];
        }
        out.push_str(rest);
        out
    }
}

/// A word of a command line, quoted where a shell would split or change it.
#[must_use]
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Where the flags go in what follows `gpuhost `: behind the verb and its recipe; 0 when it takes none.
fn place(command: &str) -> usize {
    let mut words = command.split(' ');
    let verb = words.next().unwrap_or_default();
    match verb {
        "drift" | "unlock" | "repl" => verb.len(),
        "run" | "plan" | "check" => {
            let recipe = words.next().unwrap_or_default().trim_end_matches(['.', ',', ')', ';']);
            if recipe.is_empty() || recipe.starts_with('-') { 0 } else { verb.len() + 1 + recipe.len() }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_where_they_are_missing() {
        let lead = Lead::new(Some(std::path::Path::new("s.toml")), true);
        let show = |t: &str| lead.show(t);
        assert_eq!(
            show("run `gpuhost run recipes/verify.rhai` for the cause"),
            "run `gpuhost run recipes/verify.rhai --site s.toml --lab` for the cause"
        );
        assert_eq!(
            show("Next: gpuhost run a.rhai --set x=1"),
            "Next: gpuhost run a.rhai --site s.toml --lab --set x=1"
        );
        assert_eq!(show("`gpuhost run a.rhai --lab --site b`"), "`gpuhost run a.rhai --lab --site b`");
        assert_eq!(
            show("ask `gpuhost unlock`, see gpuhost doc"),
            "ask `gpuhost unlock --site s.toml --lab`, see gpuhost doc"
        );
        assert_eq!(show("gpuhost 0.1.0 on homelab"), "gpuhost 0.1.0 on homelab");
        assert_eq!(word("size=8 GiB"), "'size=8 GiB'");
        assert_eq!(Lead::default().show("gpuhost run a.rhai"), "gpuhost run a.rhai");
    }
}
