//! What becomes of every effect in doubt: the table of ops and their classes, read out of the code at build time.
use std::fmt::Write as _;

/// One op that changes something: module, verb, effect, class.
pub type Row = (&'static str, &'static str, &'static str, &'static str);

/// Every op of the script modules that is no read.
pub const OPS: &[Row] = include!(concat!(env!("OUT_DIR"), "/ops.rs"));

fn meaning(class: &str) -> &'static str {
    match class {
        "repeatable" => "compared first and done again where it differs",
        "adoptable" => "found by marker, UPID, uid or unit, and continued",
        _ => "asked about, with when it was to happen and what is known of it",
    }
}

/// The table as a Markdown page.
#[must_use]
pub fn page(generated: &str) -> String {
    let mut out = format!(
        "# Effects in doubt\n\n{generated}\n\nA run that dies between the intent and the outcome of an effect leaves it in \
         doubt. What the next run does about it:\n\n| op | effect | class | the next run |\n|---|---|---|---|\n"
    );
    for (module, verb, effect, class) in OPS {
        writeln!(out, "| `{module}.{verb}` | {effect} | {class} | {} |", meaning(class)).ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_ops_of_every_class_and_every_op_once() {
        let class = |op: &str| OPS.iter().find(|r| format!("{}.{}", r.0, r.1) == op).map(|r| r.3);
        assert_eq!(class("proxmox.ensure_vm"), Some("adoptable"));
        assert_eq!(class("ssh.ensure"), Some("repeatable"));
        assert_eq!(class("ssh.run"), Some("ask"));
        assert_eq!(class("proxmox.remove_vm"), Some("adoptable"));
        assert!(OPS.len() > 30, "{}", OPS.len());
        assert!(page("").contains("| `ssh.run` | run | ask |"));
    }
}
