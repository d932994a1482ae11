//! How a command that changes something says what it did.
use serde::Serialize;
use serde_json::Value;

use super::super::Call;
use super::items::Item;
use super::words::Words;

/// Whether and where a change is only tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Dry {
    /// It is made.
    No,
    /// Nothing is sent.
    Client,
    /// The server tries it.
    Server,
}

impl Dry {
    /// What `--dry-run` says; `None` for a word that it does not know.
    pub fn of(w: &Words) -> Option<Dry> {
        match w.value("dry-run") {
            None | Some("none") => Some(Dry::No),
            Some("client" | "true") => Some(Dry::Client),
            Some("server") => Some(Dry::Server),
            Some(_) => None,
        }
    }

    /// Its part of a query.
    pub fn query(self) -> &'static str {
        if self == Dry::Server { "&dryRun=All" } else { "" }
    }

    /// What stands behind the words of something that was only tried.
    pub fn mark(self) -> &'static str {
        match self {
            Dry::No => "",
            Dry::Client => " (dry run)",
            Dry::Server => " (server dry run)",
        }
    }
}

/// An object as `-o` wants it; `None` for a form that is not known here.
pub(super) fn object(form: &str, v: &Value) -> Option<String> {
    // Kubectl prints fields in the order of their names.
    let mut sorted = v.clone();
    sorted.sort_all_objects();
    match form {
        "json" => {
            let mut out = Vec::new();
            let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            sorted.serialize(&mut serde_json::Serializer::with_formatter(&mut out, four)).ok()?;
            String::from_utf8(out).ok()
        }
        "yaml" => serde_saphyr::to_string(&sorted).ok().map(|t| t.trim_end().to_owned()),
        _ => form.strip_prefix("jsonpath=").and_then(|t| super::jsonpath::template(t, v)),
    }
}

/// Says what became of an object, or prints it when `-o` asks for that.
pub(super) fn said(c: &mut Call, w: &Words, item: &Item, what: &str, dry: Dry, after: &Value) {
    match w.value("output") {
        None => c.line(&format!("{} {what}{}", item.shown(), dry.mark())),
        Some("name") => c.line(&item.shown()),
        Some(form) => {
            if let Some(text) = object(form, after) {
                c.line(&text);
            }
        }
    }
}

/// Whether `-o` has a form that is known here.
pub(super) fn speaks(w: &Words) -> bool {
    w.value("output").is_none_or(|o| matches!(o, "name" | "json" | "yaml") || o.starts_with("jsonpath="))
}
