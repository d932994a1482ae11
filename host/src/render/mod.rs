//! The one error renderer: what failed, where in the recipe, why, and what to type next.
pub mod explain;
pub mod fold;

use std::fmt::Write as _;

use gpuhost_stdlib::core::error::{Kind, OpError, Stop};

use crate::screen::Paint;

/// What the renderer knows of the run.
pub struct Context<'a> {
    /// The command that continues, for example `gpuhost run recipes/deploy.rhai`.
    pub rerun: Option<&'a str>,
    /// Colours.
    pub paint: Paint,
    /// Reads the text of a source by its name.
    pub text_of: &'a dyn Fn(&str) -> Option<String>,
}

fn head(e: &OpError, p: Paint) -> String {
    let word = match e.stop {
        Some(Stop::Interrupted) => return p.yellow("interrupted"),
        Some(Stop::Refused) => "refused".to_owned(),
        Some(Stop::Proof) => "error[proof]".to_owned(),
        Some(Stop::Usage) => "error[usage]".to_owned(),
        None => format!("error[{}]", e.kind),
    };
    let target =
        if e.target.is_empty() || e.message.contains(&e.target) { String::new() } else { format!("{}: ", e.target) };
    format!("{}: {}", p.red(&word), p.bold(&format!("{target}{}", e.message)))
}

/// Length of the word at the caret.
fn word_len(line: &str, column: usize) -> usize {
    let rest = line.chars().skip(column.saturating_sub(1));
    rest.take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').count().max(1)
}

fn snippet(out: &mut String, e: &OpError, cx: &Context<'_>) {
    let Some(place) = e.place.as_ref().filter(|p| p.line > 0) else { return };
    let p = cx.paint;
    let file = if place.file.is_empty() { "recipe" } else { place.file.as_str() };
    let pad = " ".repeat(place.line.to_string().len());
    writeln!(out, "{pad}{} {file}:{}:{}", p.blue("-->"), place.line, place.column.max(1)).ok();
    let Some(text) = (cx.text_of)(&place.file) else { return };
    let Some(line) = text.lines().nth(place.line - 1) else { return };
    let line = line.replace('\t', " ");
    let bar = p.blue("|");
    let carets = "^".repeat(word_len(&line, place.column));
    let at = " ".repeat(place.column.saturating_sub(1));
    writeln!(out, "{pad} {bar}").ok();
    writeln!(out, "{} {bar} {line}", p.blue(&place.line.to_string())).ok();
    writeln!(out, "{pad} {bar} {at}{}", p.red(&carets)).ok();
}

fn note(out: &mut String, p: Paint, label: &str, text: &str) {
    let mut lines = text.lines();
    let label = format!("{:<6}", format!("{label}:"));
    writeln!(out, "   {} {} {}", p.blue("="), p.bold(&label), lines.next().unwrap_or_default()).ok();
    for l in lines {
        writeln!(out, "     {:<6} {l}", "").ok();
    }
}

fn body(out: &mut String, e: &OpError, p: Paint) {
    if !e.steps.is_empty() {
        note(out, p, "step", &e.steps.join(" / "));
    }
    if !e.op.is_empty() && e.op != "require" {
        let target = if e.target.is_empty() { String::new() } else { format!(" on {}", e.target) };
        note(out, p, "in", &format!("{}{target}", e.op));
    }
    if let Some(last) = &e.last {
        note(out, p, "last", last);
    }
    for c in &e.causes {
        note(out, p, "cause", c);
    }
    if let Some(h) = &e.hint {
        note(out, p, "hint", h);
    }
}

/// The error as text, ending with a newline.
#[must_use]
pub fn error(e: &OpError, cx: &Context<'_>) -> String {
    let mut out = String::new();
    writeln!(out, "{}", head(e, cx.paint)).ok();
    if e.stop != Some(Stop::Interrupted) {
        snippet(&mut out, e, cx);
        body(&mut out, e, cx.paint);
    }
    // A mistake in what was asked for would only be made again.
    if let Some(rerun) = cx.rerun.filter(|_| e.stop.is_some_and(|s| s != Stop::Usage) || e.kind != Kind::Invalid) {
        let how = match e.stop {
            Some(Stop::Proof) => format!("`{rerun}` checks again"),
            _ => format!("`{rerun}` continues; finished work is skipped"),
        };
        note(&mut out, cx.paint, "rerun", &how);
    }
    for o in &e.others {
        writeln!(out, "{}", head(o, cx.paint)).ok();
        let mut o = o.clone();
        if o.place != e.place {
            snippet(&mut out, &o, cx);
        }
        if o.steps == e.steps {
            o.steps.clear();
        }
        if o.hint == e.hint {
            o.hint = None;
        }
        body(&mut out, &o, cx.paint);
    }
    out
}

#[cfg(test)]
mod tests {
    use gpuhost_stdlib::core::error::Place;

    use super::*;

    #[test]
    fn the_final_layout() {
        let mut e = OpError::timeout("did not become ready within 15m")
            .on("k3s-cp2")
            .last_seen("running, guest agent silent")
            .because("cloud-init is at modules:final")
            .hint("open its console");
        e.op = "proxmox.wait_ready".to_owned();
        e.steps = vec!["create the machines".to_owned()];
        e.place = Some(Place { file: "deploy.rhai".to_owned(), line: 2, column: 4 });
        e.others = vec![OpError::timeout("did not become ready within 15m").on("k3s-cp3")];
        let cx = Context {
            rerun: Some("gpuhost run deploy.rhai"),
            paint: Paint(false),
            text_of: &|_| Some("let a = 1;\nvm.wait_ready(15.minutes);\n".to_owned()),
        };
        let expected = "\
error[timeout]: k3s-cp2: did not become ready within 15m
 --> deploy.rhai:2:4
  |
2 | vm.wait_ready(15.minutes);
  |    ^^^^^^^^^^
   = step:  create the machines
   = in:    proxmox.wait_ready on k3s-cp2
   = last:  running, guest agent silent
   = cause: cloud-init is at modules:final
   = hint:  open its console
   = rerun: `gpuhost run deploy.rhai` continues; finished work is skipped
error[timeout]: k3s-cp3: did not become ready within 15m
";
        assert_eq!(error(&e, &cx), expected);
        // The same again would only be the same mistake.
        assert!(!error(&OpError::invalid("no such option"), &cx).contains("rerun"));
    }
}
