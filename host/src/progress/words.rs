//! Changes and states in the words of the user.
use gpuhost_stdlib::core::event::{Change, Status, Verdict};
use serde_json::Value;

use crate::screen::Paint;

/// A value on one short line.
#[must_use]
pub fn value(v: &Value) -> String {
    let text = match v {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 60 || line.len() < text.trim_end().len() {
        return format!("{}…", line.chars().take(60).collect::<String>());
    }
    line.to_owned()
}

/// Two values that differ. Where they only differ behind what fits on a line, the part around the first difference.
fn pair(before: &Value, after: &Value) -> (String, String) {
    let (b, a) = (value(before), value(after));
    if b != a {
        return (b, a);
    }
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned).replace('\n', "⏎");
    let (b, a) = (text(before), text(after));
    let same = b.chars().zip(a.chars()).take_while(|(x, y)| x == y).count();
    let part = |t: &str| {
        let from = same.saturating_sub(20);
        let cut: String = t.chars().skip(from).take(60).collect();
        let more = if t.chars().count() > from + 60 { "…" } else { "" };
        format!("…{cut}{more}")
    };
    (part(&b), part(&a))
}

/// One difference: `+ disk scsi1`, `- pool`, `memory 8 GiB -> 16 GiB`.
#[must_use]
pub fn change(c: &Change) -> String {
    match (&c.before, &c.after) {
        (None, Some(a)) if a.is_boolean() || a.is_null() => format!("+ {}", c.what),
        (None, Some(a)) => format!("+ {} {}", c.what, value(a)),
        (Some(_), None) => format!("- {}", c.what),
        (Some(b), Some(a)) => {
            let (b, a) = pair(b, a);
            format!("{} {b} -> {a}", c.what)
        }
        (None, None) => c.what.clone(),
    }
}

/// Several differences: as many as fit on a line, the rest counted.
#[must_use]
pub fn changes(list: &[Change]) -> String {
    let mut out = String::new();
    for (i, c) in list.iter().enumerate() {
        let text = change(c);
        if i > 0 && out.chars().count() + text.chars().count() > 110 {
            return format!("{out}, and {} more", list.len() - i);
        }
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(&text);
    }
    out
}

/// `1 change`, `12 changes`.
#[must_use]
pub fn count(n: u64) -> String {
    if n == 1 { "1 change".to_owned() } else { format!("{n} changes") }
}

/// A mark for how something ended.
#[must_use]
pub fn mark(status: Status, p: Paint) -> String {
    match status {
        Status::Ok => p.green("ok"),
        Status::Failed => p.red("failed"),
        Status::Refused => p.red("refused"),
        Status::Interrupted => p.yellow("interrupted"),
    }
}

/// A mark for a verdict.
#[must_use]
pub fn verdict(v: Verdict, p: Paint) -> String {
    match v {
        Verdict::Pass => p.green("PASS"),
        Verdict::Warn => p.yellow("WARN"),
        Verdict::Fail => p.red("FAIL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_read_naturally() {
        let c = |b: Option<Value>, a: Option<Value>| change(&Change::new("k3s-cp1", "memory", b, a));
        assert_eq!(c(None, Some(json!("16 GiB"))), "+ memory 16 GiB");
        assert_eq!(c(Some(json!(1)), None), "- memory");
        assert_eq!(c(Some(json!("8 GiB")), Some(json!("16 GiB"))), "memory 8 GiB -> 16 GiB");
        assert_eq!(c(None, Some(json!(true))), "+ memory");
        let long = |end: &str| Some(json!(format!("{}{end}", "x".repeat(100))));
        assert_eq!(c(long("old"), long("new")), format!("memory …{0}old -> …{0}new", "x".repeat(20)));
        assert_eq!(c(Some(json!("same\na")), Some(json!("same\nb"))), "memory …same⏎a -> …same⏎b");
    }
}
