//! The line editor's helper: multi-line input and completion.
use std::collections::BTreeMap;

use rustyline::completion::{Completer, Pair};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

use super::complete;
use crate::reference::Reference;

/// What the editor asks while a line is typed.
#[derive(Helper, Hinter, Highlighter)]
pub struct Help {
    reference: &'static Reference,
    /// Variables of the session and their types.
    pub variables: BTreeMap<String, String>,
}

impl Help {
    /// A helper over the reference.
    #[must_use]
    pub fn new(reference: &'static Reference) -> Self {
        Help { reference, variables: BTreeMap::new() }
    }
}

impl Completer for Help {
    type Candidate = Pair;
    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, found) = complete::at(self.reference, &self.variables, &line[..pos]);
        let pairs = found.into_iter().map(|c| Pair { display: c.shown, replacement: c.text });
        Ok((start, pairs.collect()))
    }
}

impl Validator for Help {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_open(ctx.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// Whether brackets, texts or comments are still open.
#[must_use]
pub fn is_open(text: &str) -> bool {
    let mut depth = 0i64;
    // What ends the text or comment that we are in.
    let mut inside: Option<char> = None;
    let mut braces_in_text: Vec<i64> = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied());
        match (inside, c) {
            (Some('\n'), '\n') => inside = None,
            (Some('*'), '*') if next == Some('/') => {
                inside = None;
                i += 1;
            }
            (Some('"' | '\''), '\\') => i += 1,
            (Some('`'), '$') if next == Some('{') => {
                braces_in_text.push(depth);
                depth += 1;
                inside = None;
                i += 1;
            }
            (Some(end @ ('"' | '\'' | '`')), c) if c == end => inside = None,
            (Some(_), _) => {}
            (None, '/') if next == Some('/') => inside = Some('\n'),
            (None, '/') if next == Some('*') => inside = Some('*'),
            (None, '"' | '`') => inside = Some(c),
            // A quote may also be a character literal; both end with a quote.
            (None, '\'') => inside = Some('\''),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => {
                depth -= 1;
                if c == '}' && braces_in_text.last() == Some(&depth) {
                    braces_in_text.pop();
                    inside = Some('`');
                }
            }
            _ => {}
        }
        i += 1;
    }
    depth > 0 || matches!(inside, Some('"' | '`' | '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_when_input_goes_on() {
        for open in ["step(\"a\", || {", "let x = [1,", "print(`a", "/* x", "#{ a: 1,", "`${f("] {
            assert!(is_open(open), "{open}");
        }
        for done in ["1 + 1", "print(\"(\")", "// (", "`a ${x} b`", "let c = '{';", "f(`${g(1)}`)", ")"] {
            assert!(!is_open(done), "{done}");
        }
    }
}
