//! The hash chain of a journal: every line seals itself and all lines before it.
use sha2::{Digest, Sha256};

/// The seal of the line before the first one.
pub const START: &str = "0000000000000000";

/// The seal of `body` after a line with the seal `before`.
#[must_use]
pub fn seal(before: &str, body: &str) -> String {
    let mut sum = Sha256::new();
    sum.update(before.as_bytes());
    sum.update(body.as_bytes());
    sum.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// `body` (one JSON object) with its seal as the last member.
#[must_use]
pub fn sealed(body: &str, seal: &str) -> String {
    match body.strip_suffix('}') {
        Some(open) => format!("{open},\"sum\":\"{seal}\"}}"),
        None => body.to_owned(),
    }
}

/// Body and seal of a journal line; no seal on lines of journals that are older than the chain.
#[must_use]
pub fn open(line: &str) -> (String, Option<&str>) {
    let cut = line.strip_suffix("\"}").and_then(|l| l.rsplit_once(",\"sum\":\""));
    match cut {
        Some((open, seal)) if seal.len() == START.len() && seal.bytes().all(|b| b.is_ascii_hexdigit()) => {
            (format!("{open}}}"), Some(seal))
        }
        _ => (line.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_again() {
        let body = r#"{"v":1,"event":"x","text":"a \"sum\":\"b"}"#;
        let one = seal(START, body);
        let line = sealed(body, &one);
        assert_eq!(open(&line), (body.to_owned(), Some(one.as_str())));
        assert_ne!(one, seal(&one, body), "the place in the chain counts");
        assert_eq!(open(body), (body.to_owned(), None));
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }
}
