//! `-o jsonpath=…`: text with paths in braces, and `range`.
use serde_json::Value;

use crate::kube::api::table::{closing, find};

/// One part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(String),
    Range(String, Vec<Part>),
}

/// What a template makes of a value; `None` when it asks for more than paths, quoted text and `range`.
pub(super) fn template(text: &str, v: &Value) -> Option<String> {
    // A path may stand without its braces.
    let whole = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
    let (parts, rest) = parse(&whole, false)?;
    if !rest.is_empty() {
        return None;
    }
    let mut out = String::new();
    write(&parts, v, &mut out);
    Some(out)
}

fn parse(mut text: &str, inside: bool) -> Option<(Vec<Part>, &str)> {
    let mut parts = Vec::new();
    loop {
        let Some(open) = text.find('{') else {
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            return (!inside).then_some((parts, ""));
        };
        if open > 0 {
            parts.push(Part::Text(text[..open].to_owned()));
        }
        let close = open + closing(&text[open..], '}')?;
        let word = text[open + 1..close].trim();
        text = &text[close + 1..];
        if word == "end" {
            return inside.then_some((parts, text));
        }
        if let Some(path) = word.strip_prefix("range ") {
            let (inner, rest) = parse(text, true)?;
            parts.push(Part::Range(path.trim().to_owned(), inner));
            text = rest;
        } else if word.starts_with(['"', '\'']) {
            let bare = word.trim_matches(['"', '\'']);
            parts.push(Part::Text(bare.replace("\\n", "\n").replace("\\t", "\t")));
        } else if word.contains("..") {
            return None;
        } else {
            parts.push(Part::Path(word.trim_start_matches(['$', '@']).to_owned()));
        }
    }
}

fn write(parts: &[Part], v: &Value, out: &mut String) {
    for p in parts {
        match p {
            Part::Text(t) => out.push_str(t),
            Part::Path(path) => {
                let found: Vec<String> = found(v, path).into_iter().map(shown).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, inner) => found(v, path).into_iter().for_each(|x| write(inner, x, out)),
        }
    }
}

fn found<'a>(v: &'a Value, path: &str) -> Vec<&'a Value> {
    if path.is_empty() || path == "." { vec![v] } else { find(v, path) }
}

fn shown(v: &Value) -> String {
    let sorted = || {
        let mut v = v.clone();
        v.sort_all_objects();
        v.to_string()
    };
    v.as_str().map_or_else(sorted, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_filled_in() {
        let v = json!({"items": [{"metadata": {"name": "a"}, "n": 1}, {"metadata": {"name": "b"}, "n": 2}], "m": {"x": "y"}});
        let made = |t: &str| template(t, &v).unwrap();
        assert_eq!(made("{.items[*].metadata.name}"), "a b");
        assert_eq!(made(r#"{range .items[*]}{.metadata.name}={.n}{"\n"}{end}"#), "a=1\nb=2\n");
        assert_eq!(made(".m"), r#"{"x":"y"}"#);
        assert_eq!(made("name: {.items[0].metadata.name}!"), "name: a!");
        assert_eq!(template("{..name}", &v), None);
        assert_eq!(template("{range .items[*]}{.n}", &v), None);
    }
}
