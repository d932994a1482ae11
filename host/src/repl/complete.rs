//! Completion: modules, functions, variables, and the methods and properties of a value's type.
use std::collections::{BTreeMap, BTreeSet};

use crate::doc::terminal::hidden;
use crate::reference::{Form, Function, Reference};

/// One way to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What is inserted.
    pub text: String,
    /// What is shown in the list.
    pub shown: String,
}

fn word_start(text: &str) -> usize {
    text.char_indices()
        .rev()
        .take_while(|(_, c)| c.is_alphanumeric() || *c == '_')
        .last()
        .map_or(text.len(), |(i, _)| i)
}

fn candidate(f: &Function) -> Candidate {
    let open = match (f.form, f.arity()) {
        (Form::Property, _) => "",
        (_, 0) => "()",
        _ => "(",
    };
    let signature = match f.form {
        Form::Method | Form::Property => {
            let s = f.signature();
            s.split_once('.').map_or(s.clone(), |(_, rest)| rest.to_owned())
        }
        _ => f.signature(),
    };
    Candidate { text: format!("{}{open}", f.name), shown: format!("{signature}   {}", f.summary()) }
}

fn matching<'a>(list: impl Iterator<Item = &'a Function>, word: &str) -> Vec<Candidate> {
    let mut seen = BTreeSet::new();
    let mut out: Vec<Candidate> = list
        .filter(|f| f.name.starts_with(word) && f.form != Form::Operator && !hidden(&f.name))
        .map(candidate)
        .filter(|c| seen.insert(c.shown.clone()))
        .collect();
    out.sort_by(|a, b| a.shown.cmp(&b.shown));
    out
}

/// What may follow `text`, and where the replaced word begins.
#[must_use]
pub fn at(r: &Reference, variables: &BTreeMap<String, String>, text: &str) -> (usize, Vec<Candidate>) {
    let start = word_start(text);
    let (before, word) = text.split_at(start);
    if let Some(path) = before.strip_suffix("::") {
        let module = &path[word_start(path)..];
        let list = r.functions.iter().filter(|f| f.module == module && f.form == Form::Function);
        return (start, matching(list, word));
    }
    if let Some(chain) = before.strip_suffix("?.").or_else(|| before.strip_suffix('.')) {
        let Some(ty) = type_of(r, variables, chain) else { return (start, Vec::new()) };
        return (start, matching(r.members(&ty), word));
    }
    let mut out: Vec<Candidate> = variables
        .iter()
        .filter(|(n, _)| n.starts_with(word))
        .map(|(n, t)| Candidate { text: n.clone(), shown: format!("{n}   {t}") })
        .collect();
    out.extend(r.modules.iter().filter(|(m, _)| m.starts_with(word)).map(|(m, d)| Candidate {
        text: format!("{m}::"),
        shown: format!("{m}::   {}", d.lines().next().unwrap_or_default()),
    }));
    let ours = r.functions.iter().filter(|f| f.module.is_empty() && f.form == Form::Function && !f.standard);
    out.extend(matching(ours, word));
    (start, out)
}

/// The type of the chain of calls that `text` ends with, as far as the reference tells.
fn type_of(r: &Reference, variables: &BTreeMap<String, String>, text: &str) -> Option<String> {
    let chain = tail(text);
    let mut parts = split_chain(chain).into_iter();
    let first = parts.next()?;
    let (name, called) = (first.trim_end_matches("()"), first.ends_with("()"));
    let mut ty = if called {
        let (module, name) = name.rsplit_once("::").unwrap_or(("", name));
        r.named(name).find(|f| f.module == module && f.form == Form::Function)?.returns.clone()
    } else if name.starts_with('"') {
        "string".to_owned()
    } else if name.chars().all(|c| c.is_ascii_digit()) {
        "int".to_owned()
    } else {
        variables.get(name)?.clone()
    };
    for part in parts {
        let name = part.trim_end_matches("()");
        let next = r.members(&ty).find(|f| f.name == name)?.returns.clone();
        ty = next;
    }
    (!ty.is_empty()).then_some(ty)
}

/// The expression at the end of `text`: back to an operator, a comma or an open bracket.
fn tail(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices().rev() {
        match c {
            ')' | ']' => depth += 1,
            '(' | '[' if depth == 0 => return &text[i + c.len_utf8()..],
            '(' | '[' => depth -= 1,
            _ if depth > 0 => {}
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '"' | '?') => {}
            _ => return &text[i + c.len_utf8()..],
        }
    }
    text
}

/// `a.b(x, y).c` as `a`, `b()`, `c`.
fn split_chain(chain: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut depth = 0;
    for c in chain.chars() {
        match c {
            '(' | '[' => {
                depth += 1;
                if depth == 1
                    && c == '('
                    && let Some(l) = out.last_mut()
                {
                    l.push_str("()");
                }
            }
            ')' | ']' => depth -= 1,
            _ if depth > 0 => {}
            '.' => out.push(String::new()),
            '?' => {}
            c => {
                if let Some(l) = out.last_mut() {
                    l.push(c);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let r = Reference::builtin();
        let vars = BTreeMap::from([("pve".to_owned(), "Proxmox".to_owned())]);
        let mut t: Vec<String> = at(r, &vars, line).1.into_iter().map(|c| c.text).collect();
        t.dedup();
        t
    }

    #[test]
    fn completes_modules_functions_and_methods() {
        assert_eq!(texts("ssh::conn"), ["connect("]);
        assert!(texts("ss").contains(&"ssh::".to_owned()));
        assert!(texts("let x = para").iter().any(|t| t == "parallel("));
        assert!(texts("pve.ensure_v").contains(&"ensure_vm(".to_owned()));
        assert!(texts("pv").contains(&"pve".to_owned()));
        assert!(texts("print(site().no").contains(&"nodes".to_owned()));
        assert!(texts("5.minu").contains(&"minutes".to_owned()));
        assert!(texts("nothing.x").is_empty());
    }
}
