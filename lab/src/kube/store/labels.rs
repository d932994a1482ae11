//! Label selectors, read token by token as apimachinery does it, with its complaints.
use serde_json::Value;

use super::failure::Failure;
use crate::kube::schema::names;

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A parsed label selector; the empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels(Vec<(String, Test)>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Word,
    In,
    NotIn,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    Comma,
    Open,
    Close,
    End,
}

const SIGNS: &[(&str, Token)] = &[
    ("!=", Token::NotEqual),
    ("==", Token::Equal),
    ("!", Token::Not),
    ("=", Token::Equal),
    (">", Token::Greater),
    ("<", Token::Less),
    (",", Token::Comma),
    ("(", Token::Open),
    (")", Token::Close),
];

fn special(c: char) -> bool {
    "=!(),><".contains(c)
}

/// Splits a selector into its tokens; the last one is the end.
fn tokens(mut text: &str) -> Vec<(Token, String)> {
    let mut out = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            out.push((Token::End, String::new()));
            return out;
        }
        if let Some((sign, token)) = SIGNS.iter().find(|(s, _)| text.starts_with(s)) {
            out.push((*token, (*sign).to_owned()));
            text = &text[sign.len()..];
            continue;
        }
        let end = text.find(|c: char| special(c) || " \t\r\n".contains(c)).unwrap_or(text.len());
        let word = &text[..end];
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ => Token::Word,
        };
        out.push((token, word.to_owned()));
        text = &text[word.len()..];
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

/// Where a word is expected, `in` and `notin` are words.
fn as_word(t: Token) -> Token {
    if matches!(t, Token::In | Token::NotIn) { Token::Word } else { t }
}

impl Parser {
    fn peek(&self) -> (Token, String) {
        let (t, text) = &self.tokens[self.at.min(self.tokens.len() - 1)];
        (as_word(*t), text.clone())
    }

    fn next(&mut self) -> (Token, String) {
        let found = self.peek();
        self.at += 1;
        found
    }

    fn all(mut self) -> Result<Vec<(String, Test)>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                (Token::Word | Token::Not, _) => {
                    out.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.next() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Word | Token::Not, _) => {}
                            (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<(String, Test), String> {
        let (mut token, mut key) = self.next();
        let absent = token == Token::Not;
        if absent {
            (token, key) = self.next();
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let wrong = names::key(&key);
        if !wrong.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")));
        }
        if absent {
            return Ok((key, Test::Absent));
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok((key, Test::Exists));
        }
        let (token, sign) = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        self.at += 1;
        let values = match token {
            Token::In | Token::NotIn => self.values()?,
            Token::Equal | Token::NotEqual | Token::Greater | Token::Less => vec![self.value()?],
            _ => return Err(format!("found '{sign}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        test(&key, token, values).map(|t| (key, t))
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Word, text) => Ok(text),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let mut out = Vec::new();
        match self.peek() {
            (Token::Close, _) => {
                self.next();
                return Ok(vec![String::new()]);
            }
            (Token::Word | Token::Comma, _) => {}
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.next() {
                (Token::Word, text) => {
                    out.push(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if out.is_empty() {
                        out.push(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            out.push(String::new());
                            break;
                        }
                        Token::Comma => out.push(String::new()),
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
        self.next();
        out.sort();
        out.dedup();
        Ok(out)
    }
}

/// The test of a requirement, if its values are good for it.
fn test(key: &str, token: Token, values: Vec<String>) -> Result<Test, String> {
    let mut wrong = Vec::new();
    let number = values.first().and_then(|v| v.parse::<i64>().ok());
    let counts = matches!(token, Token::Greater | Token::Less);
    if counts && number.is_none() {
        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
        wrong.push(format!("values[0]: Invalid value: {:?}: {why}", values.first().map_or("", String::as_str)));
    }
    for (i, v) in values.iter().enumerate() {
        let why = names::value(v);
        if !why.is_empty() {
            wrong.push(format!("values[{i}][{key}]: Invalid value: {v:?}: {}", why.join("; ")));
        }
    }
    match (wrong.as_slice(), token) {
        ([one], _) => Err(one.clone()),
        ([_, ..], _) => Err(format!("[{}]", wrong.join(", "))),
        (_, Token::Greater) => Ok(Test::Greater(number.unwrap_or_default())),
        (_, Token::Less) => Ok(Test::Less(number.unwrap_or_default())),
        (_, Token::In | Token::Equal) => Ok(Test::In(values)),
        _ => Ok(Test::NotIn(values)),
    }
}

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h,!i`.
    ///
    /// # Errors
    /// 400 for a text that is no selector.
    pub fn parse(text: &str) -> Result<Labels, Failure> {
        Parser { tokens: tokens(text), at: 0 }.all().map(Labels).map_err(Failure::bad_request)
    }

    /// From the `matchLabels`/`matchExpressions` form of a spec.
    #[must_use]
    pub fn from_spec(sel: &Value) -> Labels {
        let mut out = Vec::new();
        for (k, v) in sel["matchLabels"].as_object().into_iter().flatten() {
            out.push((k.clone(), Test::In(vec![v.as_str().unwrap_or_default().to_owned()])));
        }
        for e in sel["matchExpressions"].as_array().into_iter().flatten() {
            let key = e["key"].as_str().unwrap_or_default().to_owned();
            let values =
                e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            out.push((
                key,
                match e["operator"].as_str() {
                    Some("In") => Test::In(values),
                    Some("NotIn") => Test::NotIn(values),
                    Some("DoesNotExist") => Test::Absent,
                    _ => Test::Exists,
                },
            ));
        }
        Labels(out)
    }

    /// Whether `obj`'s labels satisfy it.
    #[must_use]
    pub fn matches(&self, obj: &Value) -> bool {
        let labels = &obj["metadata"]["labels"];
        self.0.iter().all(|(k, t)| {
            let have = labels[k.as_str()].as_str();
            match t {
                Test::In(v) => have.is_some_and(|h| v.iter().any(|v| v == h)),
                Test::NotIn(v) => have.is_none_or(|h| !v.iter().any(|v| v == h)),
                Test::Exists => have.is_some(),
                Test::Absent => have.is_none(),
                Test::Greater(n) => have.and_then(|h| h.parse::<i64>().ok()).is_some_and(|h| h > *n),
                Test::Less(n) => have.and_then(|h| h.parse::<i64>().ok()).is_some_and(|h| h < *n),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_they_say() {
        let o = json!({"metadata": {"labels": {"a": "1", "b": "x", "in": "y"}}});
        for (s, want) in [
            ("", true),
            ("a=1", true),
            ("a==1,b=x", true),
            ("a!=1", false),
            ("c!=1", true),
            ("a in (1,2)", true),
            ("a in(2 , 1)", true),
            ("b notin (x)", false),
            ("a", true),
            ("!a", false),
            ("! c", true),
            ("a>0", true),
            ("a<1", false),
            ("in=y", true),
            ("b in (in,x)", true),
            ("a in ()", false),
            ("c notin (,)", true),
            ("a=", false),
        ] {
            assert_eq!(Labels::parse(s).unwrap().matches(&o), want, "{s}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_as_apimachinery_tells_it() {
        let key = "name part must consist of alphanumeric characters";
        for (s, want) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a in 1", "unable to parse requirement: found '1' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
            ("a==(", "unable to parse requirement: found '(', expected: identifier"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(Labels::parse(s).unwrap_err().message, want, "{s}");
        }
        let said = Labels::parse("-a=b").unwrap_err().message;
        assert!(
            said.starts_with(&format!("unable to parse requirement: <nil>: Invalid value: \"-a\": {key}")),
            "{said}"
        );
        let said = Labels::parse("app=-x").unwrap_err().message;
        assert!(
            said.starts_with(
                "unable to parse requirement: values[0][app]: Invalid value: \"-x\": a valid label must be"
            ),
            "{said}"
        );
    }
}
