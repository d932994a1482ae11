//! Findings of `check` and of the site file, as lines or as JSON.
use gpuhost_stdlib::site::Finding;
use serde_json::json;

use crate::screen::Screen;

/// Shows findings: `file:line:col: message` with the hint below, or one JSON object per line.
pub fn show(screen: &Screen, list: &[Finding], as_json: bool) {
    let p = screen.paint();
    for f in list {
        if as_json {
            let kind = if f.warning { "warning" } else { "error" };
            screen.out(
                &json!({
                    "event": "finding", "level": kind, "file": f.file, "line": f.line, "column": f.column,
                    "message": f.message, "hint": f.hint,
                })
                .to_string(),
            );
            continue;
        }
        let word = if f.warning { p.yellow("warning") } else { p.red("error") };
        screen.err(&format!("{}:{}:{}: {word}: {}", f.file, f.line, f.column, p.bold(&f.message)));
        if let Some(h) = &f.hint {
            screen.err(&format!("    {} {h}", p.bold("hint:")));
        }
    }
}
