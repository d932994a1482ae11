//! What a rule's author is told when a definition is made: broken syntax, names and fields that are not there, rules
//! that are no truth. Only what is certain is refused. Grade: source (the CEL compiler of apiextensions).
use serde_json::Value;

use super::parse::{Expr, parse};

/// Where libraries keep their functions.
const LIBRARIES: &[&str] = &[
    "optional",
    "sets",
    "math",
    "format",
    "base64",
    "strings",
    "cel",
    "google",
    "type",
    "lists",
    "quantity",
    "ip",
    "cidr",
    "jsonpatch",
];

/// Names of types.
const TYPES: &[&str] = &["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "dyn"];

/// What an expression is, as far as that is certain.
#[derive(Debug, Clone, Copy)]
enum Is<'a> {
    /// Described by a schema; the root has metadata of its own.
    Schema(&'a Value, bool),
    /// Of this type.
    Plain(&'static str),
    /// Anything.
    Unknown,
}

/// A complaint and the byte of the rule that it is about.
type Wrong = (String, usize);

struct Compiler<'a> {
    rule: &'a str,
    names: Vec<(String, Is<'a>)>,
}

/// Why a rule over values of `schema` does not compile; `root`: it is the schema of whole objects.
#[must_use]
pub fn trouble(rule: &str, schema: &Value, root: bool) -> Option<String> {
    let own = Is::Schema(schema, root);
    match compiled(rule, vec![("self".to_owned(), own), ("oldSelf".to_owned(), own)]) {
        Ok(Some("bool") | None) => None,
        Ok(Some(_)) => Some("cel expression must evaluate to a bool".to_owned()),
        Err(why) => Some(why),
    }
}

/// Why an expression over names of no known type does not compile; `want`: the type that it has to be of.
#[must_use]
pub fn wrong(expression: &str, known: &[&str], want: Option<&str>) -> Option<String> {
    let names = known.iter().map(|n| ((*n).to_owned(), Is::Unknown)).collect();
    match (compiled(expression, names), want) {
        (Ok(Some(is)), Some(want)) if is != want => Some(format!("must evaluate to {want} but got {is}")),
        (Ok(_), _) => None,
        (Err(why), _) => Some(why),
    }
}

/// The type of an expression, as far as that is certain, or why it does not compile.
fn compiled(rule: &str, names: Vec<(String, Is<'_>)>) -> Result<Option<&'static str>, String> {
    let found = match parse(rule) {
        Err(_) => match syntax(rule) {
            None => return Ok(None),
            Some(wrong) => wrong,
        },
        Ok(e) => match (Compiler { rule, names }).kind(&e) {
            Err(wrong) => wrong,
            Ok(is) => return Ok(type_of(is)),
        },
    };
    let (text, at) = found;
    let dots = ".".repeat(at);
    Err(format!("compilation failed: ERROR: <input>:1:{}: {text}\n | {rule}\n | {dots}^", at + 1))
}

/// What is certainly no rule at all.
fn syntax(rule: &str) -> Option<Wrong> {
    let mut open: Vec<(char, usize)> = Vec::new();
    let mut quote: Option<(char, usize)> = None;
    let mut skip = false;
    for (i, c) in rule.char_indices() {
        if skip {
            skip = false;
            continue;
        }
        match (quote, c) {
            (Some(_), '\\') => skip = true,
            (Some((q, _)), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some((c, i)),
            (None, '(' | '[' | '{') => open.push((c, i)),
            (None, ')' | ']' | '}') => {
                let want = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop().is_none_or(|(o, _)| o != want) {
                    return Some((format!("Syntax error: extraneous input '{c}' expecting <EOF>"), i));
                }
            }
            _ => {}
        }
    }
    if let Some((q, i)) = quote {
        return Some((format!("Syntax error: token recognition error at: '{q}{}'", &rule[i + 1..]), i));
    }
    let bare = rule.trim_end();
    let dangling = ["<", ">", "=", "&", "|", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", " in"];
    if !open.is_empty() || dangling.iter().any(|d| bare.ends_with(d)) {
        return Some(("Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}".to_owned(), bare.len()));
    }
    let first = bare.trim_start();
    let sign = ["<", ">", "=", "&", "|", "+", "*", "/", "%", "?", ":", ")", "]", "}"]
        .into_iter()
        .find(|d| first.starts_with(d));
    sign.map(|d| (format!("Syntax error: extraneous input '{d}' expecting {{'[', '{{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}}"), rule.len() - first.len()))
}

fn type_of(is: Is<'_>) -> Option<&'static str> {
    match is {
        Is::Plain(t) => Some(t),
        Is::Unknown => None,
        Is::Schema(s, _) if s["x-kubernetes-int-or-string"] == true => None,
        Is::Schema(s, _) => match s["type"].as_str()? {
            "string" if matches!(s["format"].as_str(), Some("date" | "date-time" | "duration" | "byte")) => None,
            "string" => Some("string"),
            "integer" => Some("int"),
            "number" => Some("double"),
            "boolean" => Some("bool"),
            "array" => Some("list"),
            "object" if s["additionalProperties"].is_object() => Some("map"),
            "object" => Some("object"),
            _ => None,
        },
    }
}

fn is_number(t: &str) -> bool {
    matches!(t, "int" | "double" | "uint")
}

impl<'a> Compiler<'a> {
    /// The place of `text` as a word of its own in the rule.
    fn place(&self, before: char, text: &str) -> usize {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let found = self.rule.match_indices(text).map(|(i, _)| i).find(|i| {
            let left = self.rule[..*i].chars().next_back();
            let right = self.rule[i + text.len()..].chars().next();
            let fits = if before == '.' { left == Some('.') } else { left.is_none_or(|c| !word(c) && c != '.') };
            fits && right.is_none_or(|c| !word(c))
        });
        found.map_or(0, |i| if before == '.' { i - 1 } else { i })
    }

    fn field(&self, of: Is<'a>, name: &str) -> Result<Is<'a>, Wrong> {
        if let Some(scalar @ ("string" | "int" | "double" | "bool")) = type_of(of) {
            let why = format!("type '{scalar}' does not support field selection");
            return Err((why, self.place('.', name)));
        }
        let Is::Schema(s, root) = of else { return Ok(Is::Unknown) };
        let open = s["x-kubernetes-preserve-unknown-fields"] == true
            || s["x-kubernetes-int-or-string"] == true
            || s["x-kubernetes-embedded-resource"] == true
            || !s["properties"].is_object();
        if let Some(below) = s["properties"].get(name).filter(|_| !(root && name == "metadata")) {
            return Ok(Is::Schema(below, false));
        }
        if s["additionalProperties"].is_object() {
            return Ok(Is::Schema(&s["additionalProperties"], false));
        }
        if root && matches!(name, "apiVersion" | "kind" | "metadata") || open {
            return Ok(Is::Unknown);
        }
        Err((format!("undefined field '{name}'"), self.place('.', name)))
    }

    fn items(&self, of: Is<'a>) -> Is<'a> {
        match of {
            Is::Schema(s, _) if s["type"] == "array" => Is::Schema(&s["items"], false),
            Is::Schema(s, _) if s["additionalProperties"].is_object() => Is::Schema(&s["additionalProperties"], false),
            _ => Is::Unknown,
        }
    }

    fn kind(&mut self, e: &Expr) -> Result<Is<'a>, Wrong> {
        Ok(match e {
            Expr::Literal(v) => match v {
                Value::Bool(_) => Is::Plain("bool"),
                Value::String(_) => Is::Plain("string"),
                Value::Number(n) if n.is_f64() => Is::Plain("double"),
                Value::Number(_) => Is::Plain("int"),
                _ => Is::Unknown,
            },
            Expr::Name(n) => match self.names.iter().rev().find(|(k, _)| k == n) {
                Some((_, is)) => *is,
                None if TYPES.contains(&n.as_str()) || LIBRARIES.contains(&n.as_str()) => Is::Unknown,
                None => return Err((format!("undeclared reference to '{n}' (in container '')"), self.place(' ', n))),
            },
            Expr::Field(of, name) => {
                let of = self.kind(of)?;
                self.field(of, name)?
            }
            Expr::Maybe(of, _) => {
                self.kind(of)?;
                Is::Unknown
            }
            Expr::Index(of, i) => {
                self.kind(i)?;
                let of = self.kind(of)?;
                self.items(of)
            }
            Expr::Not(e) => {
                self.kind(e)?;
                Is::Plain("bool")
            }
            Expr::Negative(e) => self.kind(e)?,
            Expr::List(l) => {
                for e in l {
                    self.kind(e)?;
                }
                Is::Plain("list")
            }
            Expr::Map(l) => {
                for (k, v) in l {
                    self.kind(k)?;
                    self.kind(v)?;
                }
                Is::Plain("map")
            }
            Expr::Choice(when, yes, no) => {
                self.kind(when)?;
                let yes = self.kind(yes)?;
                self.kind(no)?;
                yes
            }
            Expr::Binary(sign, a, b) => self.binary(sign, a, b)?,
            Expr::Call(on, name, args) => self.call(on.as_deref(), name, args)?,
        })
    }

    fn binary(&mut self, sign: &'static str, a: &Expr, b: &Expr) -> Result<Is<'a>, Wrong> {
        let (a, b) = (self.kind(a)?, self.kind(b)?);
        let (left, right) = (type_of(a), type_of(b));
        let plain = |t: &str| is_number(t) || matches!(t, "string" | "bool");
        if let (Some(l), Some(r)) = (left, right)
            && matches!(sign, "<" | "<=" | ">" | ">=" | "==" | "!=")
            && plain(l)
            && plain(r)
            && l != r
            && !(is_number(l) && is_number(r))
        {
            let at = self.rule.find(sign).unwrap_or(0);
            return Err((format!("found no matching overload for '_{sign}_' applied to '({l}, {r})'"), at));
        }
        if let (Some(l), Some(r)) = (left, right)
            && matches!(sign, "+" | "-" | "*" | "/" | "%")
            && plain(l)
            && plain(r)
            && l != r
        {
            let at = self.rule.find(sign).unwrap_or(0);
            return Err((format!("found no matching overload for '_{sign}_' applied to '({l}, {r})'"), at));
        }
        Ok(match sign {
            "+" | "-" | "*" | "/" | "%" => {
                left.filter(|l| is_number(l) || *l == "string").map_or(Is::Unknown, Is::Plain)
            }
            _ => Is::Plain("bool"),
        })
    }

    fn call(&mut self, on: Option<&Expr>, name: &str, args: &[Expr]) -> Result<Is<'a>, Wrong> {
        let Some(on) = on else {
            for a in args {
                self.kind(a)?;
            }
            return Ok(match name {
                "has" => Is::Plain("bool"),
                "size" | "int" => Is::Plain("int"),
                "string" => Is::Plain("string"),
                "double" => Is::Plain("double"),
                _ => Is::Unknown,
            });
        };
        let of = self.kind(on)?;
        let macros = matches!(
            name,
            "all"
                | "exists"
                | "exists_one"
                | "existsOne"
                | "filter"
                | "map"
                | "optMap"
                | "optFlatMap"
                | "transformList"
                | "transformMap"
        );
        if let (true, [Expr::Name(var), rest @ ..]) = (macros, args) {
            // over the items of a list, or the keys of a map
            let item = match of {
                Is::Schema(s, _) if s["type"] == "array" => Is::Schema(&s["items"], false),
                _ => Is::Unknown,
            };
            let count = self.names.len();
            self.names.push((var.clone(), item));
            let rest = match rest {
                // the form with two variables: index or key, and value
                [Expr::Name(second), more @ ..] if !more.is_empty() => {
                    self.names[count].1 = Is::Unknown;
                    self.names.push((second.clone(), Is::Unknown));
                    more
                }
                rest => rest,
            };
            for e in rest {
                self.kind(e)?;
            }
            self.names.truncate(count);
            return Ok(match name {
                "filter" => of,
                "all" | "exists" | "exists_one" | "existsOne" => Is::Plain("bool"),
                _ => Is::Unknown,
            });
        }
        for a in args {
            self.kind(a)?;
        }
        Ok(match name {
            "startsWith" | "endsWith" | "contains" | "matches" => Is::Plain("bool"),
            "size" => Is::Plain("int"),
            "lowerAscii" | "upperAscii" | "trim" => Is::Plain("string"),
            _ => Is::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_certain_is_refused() {
        let schema = json!({"type": "object", "properties": {
            "min": {"type": "integer"}, "name": {"type": "string"}, "on": {"type": "boolean"},
            "half": {"type": "number"}, "any": {"x-kubernetes-int-or-string": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        for good in [
            "self.min > 1",
            "self.on",
            "self.min < self.half",
            "self.any == 'x'",
            "self.list.all(x, x.port > 80)",
            "self.list[0].port == 1",
            "self.map.all(k, self.map[k] != '')",
            "self.map.some == 'x'",
            "self.open.some.thing > 1",
            "!has(self.name) || self.name.size() > 2",
            "oldSelf.min == self.min",
            "self.?name.orValue('') == ''",
            "quantity(self.name).isLessThan(quantity('1Gi'))",
            "sets.contains(['a'], ['a'])",
            "type(self.min) == int",
            "self.list.exists(i, x, x.port == i)",
            "self.name.matches('^[a-z(]+$')",
            "self.list.map(x, x.port).isSorted()",
            "isURL(self.name) && url(self.name).getHost() == 'x'",
            "self.name in ['a', 'b']",
            "dyn(self.min) == 'x'",
        ] {
            assert_eq!(trouble(good, &schema, false), None, "{good}");
        }
        for (bad, why) in [
            (
                "self.nope > 1",
                "compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^",
            ),
            (
                "foo.bar == 1",
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo.bar == 1\n | ^",
            ),
            ("self.list.all(x, x.prt > 1)", "undefined field 'prt'"),
            ("self.min >", "Syntax error: mismatched input '<EOF>'"),
            ("(self.min > 1", "Syntax error"),
            ("self.min > 1)", "extraneous input ')'"),
            ("self.name == 'x", "token recognition error"),
            ("self.min", "cel expression must evaluate to a bool"),
            ("self.min + 1", "cel expression must evaluate to a bool"),
            ("self.name > 3", "found no matching overload for '_>_' applied to '(string, int)'"),
        ] {
            let said = trouble(bad, &schema, false).unwrap_or_default();
            assert!(said.contains(why), "{bad}: {said}");
        }
        let root = json!({"type": "object", "properties": {"spec": schema, "metadata": {"type": "object"}}});
        assert_eq!(trouble("self.metadata.name.startsWith('a') && self.spec.min > 0", &root, true), None);
    }
}
