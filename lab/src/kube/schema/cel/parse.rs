//! The text of a rule as a tree.
use serde_json::{Value, json};

/// A rule, or a part of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A value.
    Literal(Value),
    /// `self`, `oldSelf`, a variable of a macro.
    Name(String),
    /// `a.b`.
    Field(Box<Expr>, String),
    /// `a.?b`.
    Maybe(Box<Expr>, String),
    /// `a[b]`.
    Index(Box<Expr>, Box<Expr>),
    /// `f(x)` or `a.f(x)`.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `{a: b}`.
    Map(Vec<(Expr, Expr)>),
    /// `!a`.
    Not(Box<Expr>),
    /// `-a`.
    Negative(Box<Expr>),
    /// `a + b`.
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `a ? b : c`.
    Choice(Box<Expr>, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Value(Value),
    Sign(&'static str),
}

const SIGNS: &[&str] = &[
    "<=", ">=", "==", "!=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// Operators by how tightly they bind, the loosest first.
const LEVELS: &[&[&str]] =
    &[&["||"], &["&&"], &["<", "<=", ">", ">=", "==", "!=", "in"], &["+", "-"], &["*", "/", "%"]];

fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            c if c == quote => return Some((out, i + 1)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

fn number(text: &str) -> Option<(Value, usize)> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        return Some((json!(i64::from_str_radix(&digits[..end], 16).ok()?), end + 2));
    }
    let plain = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    if let Some(power) = text[plain..].strip_prefix(['e', 'E']) {
        let signed = power.trim_start_matches(['+', '-']);
        let digits = signed.find(|c: char| !c.is_ascii_digit()).unwrap_or(signed.len());
        let all = plain + 1 + (power.len() - signed.len()) + digits;
        if digits > 0 {
            return Some((json!(text[..all].parse::<f64>().ok()?), all));
        }
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let fraction = text[end..].strip_prefix('.').filter(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    match fraction {
        Some(rest) => {
            let more = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let all = end + 1 + more;
            Some((json!(text[..all].parse::<f64>().ok()?), all))
        }
        None => {
            let unsigned = usize::from(text[end..].starts_with('u'));
            Some((json!(text[..end].parse::<i64>().ok()?), end + unsigned))
        }
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let used = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '\'' || c == '"' {
            let (text, n) = quoted(rest, c)?;
            out.push(Token::Value(text.into()));
            n
        } else if rest.starts_with("r'") || rest.starts_with("r\"") {
            let end = rest[2..].find(&rest[1..2])?;
            out.push(Token::Value(rest[2..2 + end].into()));
            end + 3
        } else if c.is_ascii_digit() {
            let (v, n) = number(rest)?;
            out.push(Token::Value(v));
            n
        } else if c.is_ascii_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            out.push(match &rest[..end] {
                "true" => Token::Value(true.into()),
                "false" => Token::Value(false.into()),
                "null" => Token::Value(Value::Null),
                "in" => Token::Sign("in"),
                w => Token::Word(w.to_owned()),
            });
            end
        } else {
            let sign = SIGNS.iter().find(|s| rest.starts_with(**s))?;
            out.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest[used..].trim_start();
    }
    Some(out)
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// A rule that cannot be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

type Read<T> = Result<T, Unreadable>;

/// Reads a rule.
///
/// # Errors
/// For a text that is no rule, or one that uses what is not here.
pub fn parse(text: &str) -> Read<Expr> {
    let mut r = Reader { tokens: tokens(text).ok_or(Unreadable)?, at: 0, depth: 0 };
    let e = r.expression()?;
    if r.at == r.tokens.len() { Ok(e) } else { Err(Unreadable) }
}

/// A field as its escaped form in rules means it.
fn unescaped(name: &str) -> String {
    let escaped = [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")];
    match name.strip_prefix("__").and_then(|n| n.strip_suffix("__")).filter(|n| !n.contains("__")) {
        Some(keyword) => keyword.to_owned(),
        None => escaped.iter().fold(name.to_owned(), |n, (from, to)| n.replace(from, to)),
    }
}

/// Whether an expression is the name of a message: `Object.spec`, `JSONPatch`.
fn message(e: &Expr) -> bool {
    match e {
        Expr::Name(n) => n == "Object" || n == "JSONPatch",
        Expr::Field(of, _) => message(of),
        _ => false,
    }
}

impl Reader {
    fn is(&mut self, sign: &str) -> bool {
        let yes = matches!(self.tokens.get(self.at), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(yes);
        yes
    }

    fn must(&mut self, sign: &str) -> Read<()> {
        if self.is(sign) { Ok(()) } else { Err(Unreadable) }
    }

    fn expression(&mut self) -> Read<Expr> {
        self.depth += 1;
        if self.depth > 64 {
            return Err(Unreadable);
        }
        let e = self.level(0)?;
        let e = if self.is("?") {
            let yes = self.expression()?;
            self.must(":")?;
            Expr::Choice(Box::new(e), Box::new(yes), Box::new(self.expression()?))
        } else {
            e
        };
        self.depth -= 1;
        Ok(e)
    }

    fn level(&mut self, n: usize) -> Read<Expr> {
        let Some(signs) = LEVELS.get(n) else { return self.unary() };
        let mut left = self.level(n + 1)?;
        'more: loop {
            for s in *signs {
                if self.is(s) {
                    left = Expr::Binary(s, Box::new(left), Box::new(self.level(n + 1)?));
                    continue 'more;
                }
            }
            return Ok(left);
        }
    }

    fn unary(&mut self) -> Read<Expr> {
        if self.is("!") {
            return Ok(Expr::Not(Box::new(self.unary()?)));
        }
        if self.is("-") {
            return Ok(Expr::Negative(Box::new(self.unary()?)));
        }
        let mut e = self.primary()?;
        loop {
            if self.is(".") {
                let maybe = self.is("?");
                let Some(Token::Word(name)) = self.tokens.get(self.at).cloned() else { return Err(Unreadable) };
                self.at += 1;
                e = if maybe {
                    Expr::Maybe(Box::new(e), unescaped(&name))
                } else if self.is("(") {
                    Expr::Call(Some(Box::new(e)), name, self.list(")")?)
                } else {
                    Expr::Field(Box::new(e), unescaped(&name))
                };
            } else if self.is("[") {
                // an index that need not be there
                let maybe = self.is("?");
                let i = self.expression()?;
                self.must("]")?;
                e = match i {
                    Expr::Literal(Value::String(name)) if maybe => Expr::Maybe(Box::new(e), name),
                    _ if maybe => return Err(Unreadable),
                    i => Expr::Index(Box::new(e), Box::new(i)),
                };
            } else if message(&e) && self.is("{") {
                e = Expr::Map(self.fields()?);
            } else {
                return Ok(e);
            }
        }
    }

    /// The fields of a message, behind its `{`.
    fn fields(&mut self) -> Read<Vec<(Expr, Expr)>> {
        let mut out = Vec::new();
        while !self.is("}") {
            if !out.is_empty() {
                self.must(",")?;
                if self.is("}") {
                    break;
                }
            }
            let Some(Token::Word(name)) = self.tokens.get(self.at).cloned() else { return Err(Unreadable) };
            self.at += 1;
            self.must(":")?;
            out.push((Expr::Literal(unescaped(&name).into()), self.expression()?));
        }
        Ok(out)
    }

    fn list(&mut self, end: &str) -> Read<Vec<Expr>> {
        let mut out = Vec::new();
        while !self.is(end) {
            if !out.is_empty() {
                self.must(",")?;
                if self.is(end) {
                    break;
                }
            }
            out.push(self.expression()?);
        }
        Ok(out)
    }

    fn primary(&mut self) -> Read<Expr> {
        if self.is("(") {
            let e = self.expression()?;
            return self.must(")").map(|()| e);
        }
        if self.is("[") {
            return self.list("]").map(Expr::List);
        }
        if self.is("{") {
            let mut out = Vec::new();
            while !self.is("}") {
                if !out.is_empty() {
                    self.must(",")?;
                }
                let k = self.expression()?;
                self.must(":")?;
                out.push((k, self.expression()?));
            }
            return Ok(Expr::Map(out));
        }
        let token = self.tokens.get(self.at).cloned().ok_or(Unreadable)?;
        self.at += 1;
        match token {
            Token::Value(v) => Ok(Expr::Literal(v)),
            Token::Word(w) if self.is("(") => Ok(Expr::Call(None, w, self.list(")")?)),
            Token::Word(w) => Ok(Expr::Name(w)),
            Token::Sign(_) => Err(Unreadable),
        }
    }
}
