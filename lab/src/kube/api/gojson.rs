//! JSON as Go reads it: the same error texts, and the paths of keys that appear twice.
use serde_json::{Map, Value};

/// How deep values may nest.
const DEPTH: usize = 512;

/// A text that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The value; of keys that appear twice the last one counts.
    pub value: Value,
    /// Paths of keys that appear twice, in the order of the text.
    pub duplicates: Vec<String>,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    duplicates: Vec<String>,
}

/// A character as Go's decoder quotes it.
fn quoted(b: u8) -> String {
    match b {
        b'\'' => r"'\''".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(b)),
        0x80.. => format!("'{}'", char::from(b)),
        _ => format!("'\\x{b:02x}'"),
    }
}

/// Reads one JSON value.
///
/// # Errors
/// The text of Go's decoder.
pub fn parse(text: &[u8]) -> Result<Parsed, String> {
    let mut r = Reader { text, at: 0, duplicates: Vec::new() };
    let value = r.value("", 0)?;
    r.space();
    match r.peek() {
        None => Ok(Parsed { value, duplicates: r.duplicates }),
        Some(b) => Err(format!("invalid character {} after top-level value", quoted(b))),
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&mut self, context: &str) -> Result<u8, String> {
        self.space();
        let b = self.peek().ok_or("unexpected end of JSON input")?;
        if context.is_empty() {
            return Ok(b);
        }
        Err(format!("invalid character {} {context}", quoted(b)))
    }

    fn value(&mut self, path: &str, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        match self.next("")? {
            b'{' => self.object(path, depth),
            b'[' => self.array(path, depth),
            b'"' => self.string().map(Value::String),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.next("looking for beginning of value").map(|_| Value::Null),
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, String> {
        for (i, want) in word.bytes().enumerate() {
            match self.peek() {
                None => return Err("unexpected end of JSON input".to_owned()),
                Some(b) if b == want => self.at += 1,
                Some(b) if i > 0 => {
                    let why = format!("in literal {word} (expecting {})", quoted(want));
                    return Err(format!("invalid character {} {why}", quoted(b)));
                }
                Some(_) => return self.next("looking for beginning of value").map(|_| Value::Null),
            }
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, String> {
        let from = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.text[from..self.at]).unwrap_or_default();
        serde_json::from_str(text).map_err(|_| match self.peek() {
            Some(b) => format!("invalid character {} in numeric literal", quoted(b)),
            None => "unexpected end of JSON input".to_owned(),
        })
    }

    fn string(&mut self) -> Result<String, String> {
        let from = self.at;
        self.at += 1;
        loop {
            match self.peek().ok_or("unexpected end of JSON input")? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    match self.peek().ok_or("unexpected end of JSON input")? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u' => {}
                        b => return Err(format!("invalid character {} in string escape code", quoted(b))),
                    }
                }
                b if b < 0x20 => return Err(format!("invalid character {} in string literal", quoted(b))),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        // Half a surrogate pair and bytes that are no UTF-8 become U+FFFD, as in Go.
        let text = String::from_utf8_lossy(&self.text[from..self.at]);
        Ok(serde_json::from_str(&text).unwrap_or_else(|_| text.trim_matches('"').to_owned()))
    }

    fn object(&mut self, path: &str, depth: usize) -> Result<Value, String> {
        let mut out = Map::new();
        self.at += 1;
        if self.next("")? == b'}' {
            self.at += 1;
            return Ok(Value::Object(out));
        }
        loop {
            if self.next("")? != b'"' {
                self.next("looking for beginning of object key string")?;
            }
            let key = self.string()?;
            if self.next("")? != b':' {
                self.next("after object key")?;
            }
            self.at += 1;
            let sub = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if out.contains_key(&key) && !self.duplicates.contains(&sub) {
                self.duplicates.push(sub.clone());
            }
            let value = self.value(&sub, depth + 1)?;
            out.insert(key, value);
            match self.next("")? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(Value::Object(out));
                }
                _ => drop(self.next("after object key:value pair")?),
            }
        }
    }

    fn array(&mut self, path: &str, depth: usize) -> Result<Value, String> {
        let mut out = Vec::new();
        self.at += 1;
        if self.next("")? == b']' {
            self.at += 1;
            return Ok(Value::Array(out));
        }
        loop {
            let sub = format!("{path}[{}]", out.len());
            out.push(self.value(&sub, depth + 1)?);
            match self.next("")? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(Value::Array(out));
                }
                _ => drop(self.next("after array element")?),
            }
        }
    }
}

/// A value as Go's `%v` prints it (`map[a:1 b:[x y]]`).
#[must_use]
pub fn printed(v: &Value) -> String {
    match v {
        Value::Null => "<nil>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(a) => format!("[{}]", a.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(m) => {
            let mut keys: Vec<(&String, &Value)> = m.iter().collect();
            keys.sort_by_key(|k| k.0);
            let parts: Vec<String> = keys.into_iter().map(|(k, v)| format!("{k}:{}", printed(v))).collect();
            format!("map[{}]", parts.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_have_paths_and_the_last_value_counts() {
        let p = parse(br#"{"spec":{"containers":[{"image":"i","image":"j"}]},"spec2":1}"#).unwrap();
        assert_eq!(p.duplicates, ["spec.containers[0].image"]);
        assert_eq!(p.value["spec"]["containers"][0]["image"], "j");
    }

    #[test]
    fn errors_read_as_in_go() {
        for (text, want) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("nul", "unexpected end of JSON input"),
            ("trye", "invalid character 'y' in literal true (expecting 'u')"),
            ("hello", "invalid character 'h' looking for beginning of value"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn values_print_as_in_go() {
        assert_eq!(printed(&json!({"spec": {"z": 1, "a": [null, "x"]}})), "map[spec:map[a:[<nil> x] z:1]]");
    }
}
