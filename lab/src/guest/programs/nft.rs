//! `nft`: tables are loaded from files, listed, and get rules put in front. What they do to packets: [`crate::guest::firewall`].
use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::{Call, Program, later, of};

pub(super) const PROGRAMS: &[Program] = &[of("nftables", later("/usr/sbin/nft", nft))];

/// What a file says to do.
enum Statement {
    Flush,
    Delete(String),
    /// `family name` and what stands between the braces.
    Table(String, String),
}

fn parse(text: &str) -> Result<Vec<Statement>, String> {
    let text: String = text.lines().map(|l| l.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut rest = text.trim_start();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let end = rest.find(['\n', ';', '{']).unwrap_or(rest.len());
        let words: Vec<&str> = rest[..end].split_whitespace().collect();
        let opens = rest[end..].starts_with('{');
        match words.as_slice() {
            ["flush", "ruleset"] => out.push(Statement::Flush),
            ["delete", "table", family, name] => out.push(Statement::Delete(format!("{family} {name}"))),
            ["table", family, name] | ["add", "table", family, name] => {
                let mut body = String::new();
                if opens {
                    let close = closing(&rest[end..]).ok_or("Error: syntax error, unexpected end of file")?;
                    body = rest[end + 1..end + close].trim().to_owned();
                    rest = &rest[end + close..];
                }
                out.push(Statement::Table(format!("{family} {name}"), body));
                rest = if opens { rest[1..].trim_start() } else { rest[end..].trim_start_matches([';', '\n', ' ']) };
                continue;
            }
            _ => return Err(format!("Error: syntax error, unexpected {}", words.first().unwrap_or(&"newline"))),
        }
        rest = rest[end..].trim_start_matches([';', '\n', ' ']);
    }
    Ok(out)
}

/// Where the brace that opens `text` closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(i, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        (depth == 0).then_some(i)
    })
}

fn nft(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        if !c.must_be_root("Operation not permitted (you must be root)") {
            return 1;
        }
        if let Some(file) = c.value(&["-f", "--file"]) {
            let bytes = if file == "-" {
                c.read_all().await
            } else {
                let path = c.path(&file);
                match c.m.files.read(&c.who, &path) {
                    Ok(b) => b.as_ref().clone(),
                    Err(_) => {
                        return c.fail(1, &format!("Error: Could not open file \"{file}\": No such file or directory"));
                    }
                }
            };
            return load(c, &String::from_utf8_lossy(&bytes));
        }
        let words = c.operands(&[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let tables = c.guest(|g| g.nft.clone()).unwrap_or_default();
        match words.as_slice() {
            ["list", "ruleset"] => {
                for (name, body) in &tables {
                    c.line(&format!("table {name} {{\n\t{body}\n}}"));
                }
                0
            }
            ["list", "tables"] => {
                for name in tables.keys() {
                    c.line(&format!("table {name}"));
                }
                0
            }
            ["list", "table", family, name] => match tables.get(&format!("{family} {name}")) {
                Some(body) => {
                    c.line(&format!("table {family} {name} {{\n\t{body}\n}}"));
                    0
                }
                None => c.fail(1, "Error: No such file or directory"),
            },
            ["list", "chain", family, name, chain] => {
                let body = tables.get(&format!("{family} {name}")).map(String::as_str).unwrap_or_default();
                let found = body.find(&format!("chain {chain} {{")).and_then(|at| {
                    let open = at + body[at..].find('{')?;
                    Some(body[at..=open + closing(&body[open..])?].to_owned())
                });
                match found {
                    Some(text) => {
                        c.line(&format!("table {family} {name} {{\n\t{text}\n}}"));
                        0
                    }
                    None => c.fail(1, "Error: No such file or directory"),
                }
            }
            ["delete", "table", ..] | ["flush", "ruleset"] => load(c, &words.join(" ")),
            ["insert", "rule", family, name, chain, rule @ ..] => {
                insert(c, &format!("{family} {name}"), chain, &rule.join(" "))
            }
            _ => c.unsimulated(&words.join(" ")),
        }
    })
}

/// Puts a rule before the others of a chain.
fn insert(c: &mut Call, table: &str, chain: &str, rule: &str) -> i32 {
    let body = c.guest(|g| g.nft.get(table).cloned()).flatten().unwrap_or_default();
    let place = body.find(&format!("chain {chain} {{")).and_then(|at| {
        // a base chain begins with its type and its policy
        let open = at + body[at..].find('{')? + 1;
        let head = ["type ", "policy "].iter().filter_map(|w| {
            let from = open + body[open..].find(w)?;
            Some(from + body[from..].find(';')? + 1)
        });
        Some(head.max().unwrap_or(open))
    });
    let Some(at) = place else { return c.fail(1, "Error: No such file or directory") };
    let new = format!("{}\n\t\t{rule}{}", &body[..at], &body[at..]);
    change(c, |tables| drop(tables.insert(table.to_owned(), new)));
    0
}

/// Changes the tables of the machine, and says so to what talks through its filter.
fn change(c: &Call, f: impl FnOnce(&mut BTreeMap<String, String>)) {
    c.guest(|g| f(&mut g.nft));
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    c.world(|w| crate::kube::filter_changed(&lab, w, vmid));
}

/// Does all of a file or nothing.
fn load(c: &mut Call, text: &str) -> i32 {
    let statements = match parse(text) {
        Ok(s) => s,
        Err(e) => return c.fail(1, &e),
    };
    let mut tables = c.guest(|g| g.nft.clone()).unwrap_or_default();
    for s in statements {
        match s {
            Statement::Flush => tables.clear(),
            Statement::Delete(name) => {
                if tables.remove(&name).is_none() {
                    return c.fail(1, &format!("Error: No such file or directory\ndelete table {name}"));
                }
            }
            Statement::Table(name, body) => {
                let old = tables.entry(name).or_default();
                if !body.is_empty() {
                    *old = if old.is_empty() { body } else { format!("{old}\n\t{body}") };
                }
            }
        }
    }
    if !c.has(&["-c", "--check"]) {
        change(c, |kept| *kept = tables);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_statements() {
        let text = "# c\ntable inet a\ndelete table inet a\ntable inet a {\n chain x { ct state { new, old } accept }\n}\nflush ruleset\n";
        let s = parse(text).unwrap();
        assert_eq!(s.len(), 4);
        assert!(
            matches!(&s[2], Statement::Table(n, b) if n == "inet a" && b.starts_with("chain x {") && b.ends_with('}'))
        );
        assert!(parse("table inet a {").is_err() && parse("rubbish").is_err());
    }
}
