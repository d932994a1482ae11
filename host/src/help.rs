//! `gpuhost run RECIPE --help`: what the recipe says of itself, after the help of the command.
use std::fmt::Write as _;

use crate::check::{self, ParamUse};
use crate::sources;

/// Options of `run` that take the next word as their value.
const VALUED: &[&str] = &["--site", "--set", "--state-dir", "--plan", "--faults"];

/// The recipe's own help, if the words are `run RECIPE … --help` with a recipe that can be read.
#[must_use]
pub fn recipe(mut words: impl Iterator<Item = String>) -> Option<String> {
    if words.next()? != "run" {
        return None;
    }
    let name = loop {
        let word = words.next()?;
        if VALUED.contains(&word.as_str()) {
            words.next();
        } else if !word.starts_with('-') {
            break word;
        }
    };
    let text = sources::recipe(&name).ok()?;
    let params = check::command::recipe(&text).params;
    Some(page(&text.name, &text.text, &params))
}

fn page(name: &str, text: &str, params: &[ParamUse]) -> String {
    let mut out = format!("\n{name}:\n");
    for line in text.lines().map_while(|l| l.strip_prefix("//!")) {
        writeln!(out, " {line}").ok();
    }
    if params.is_empty() {
        out.push_str("\nThe recipe has no parameters.\n");
        return out;
    }
    out.push_str("\nParameters (`--set NAME=VALUE`):\n");
    let shown: Vec<String> = params
        .iter()
        .map(|p| match (p.needed, p.default.is_empty()) {
            (true, _) => format!("{} (needed)", p.name),
            (_, true) => p.name.clone(),
            _ => format!("{}={}", p.name, p.default),
        })
        .collect();
    let width = shown.iter().map(|s| s.chars().count()).max().unwrap_or(0);
    for (p, left) in params.iter().zip(&shown) {
        writeln!(out, "{}", format!("  {left:<width$}  {}", p.about).trim_end()).ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(line: &str) -> Option<String> {
        recipe(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn lists_parameters_with_their_comments() {
        let text = help("run --lab --site x.toml cleanup --help").unwrap();
        assert!(text.contains("Takes down exactly what this site made"), "{text}");
        let line = text.lines().find(|l| l.contains("delete_data=false")).unwrap();
        assert!(line.contains("data disks"), "{line}");
        assert!(help("run deploy -h").unwrap().contains("no parameters"));
    }

    #[test]
    fn says_nothing_where_there_is_no_recipe() {
        assert_eq!(help("run --help"), None);
        assert_eq!(help("check deploy --help"), None);
        assert_eq!(help("run nothing-of-that-name --help"), None);
    }
}
