//! Rules of the script API: every function is documented by its own doc comment, named by one list of verbs.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeSet;

use gpuhost::reference::{Form, Function, Reference};

/// First words of functions and methods. Each has one meaning everywhere.
const VERBS: &[(&str, &str)] = &[
    ("connect", "makes a handle to something that exists"),
    ("ensure", "makes it so; a second time changes nothing"),
    ("remove", "takes away what this site owns"),
    ("get", "asks for one thing; an error when it is absent"),
    ("find", "asks for one thing; `()` when it is absent"),
    ("list", "asks for all of them"),
    ("count", "asks how many"),
    ("wait", "waits until it is so, with a limit"),
    ("check", "looks and reports, changes nothing"),
    ("is", "a property of something already read"),
    ("has", "a property of something already read"),
    ("read", "gives a content"),
    ("write", "replaces a content"),
    ("lock", "takes a lock for the rest of the run"),
    ("run", "runs something that may change anything"),
    ("apply", "Kubernetes' own word: makes objects as declared"),
    ("delete", "Kubernetes' own word"),
    ("require", "stops the run unless it holds"),
    ("load", "reads a file as data"),
    ("to", "another form of a value"),
    ("join", "the items of a list as one text"),
    ("parse", "a value from a text"),
    ("restart", "the field's own word"),
    ("reboot", "the field's own word"),
    ("start", "the field's own word"),
    ("stop", "the field's own word"),
    ("shutdown", "the field's own word"),
    ("reset", "the field's own word"),
    ("suspend", "the field's own word"),
    ("resume", "the field's own word"),
    ("rollback", "back to an earlier state: what came after is lost"),
    ("backup", "the field's own word"),
    ("restore", "a backup takes the place of what is there"),
    ("migrate", "to another hypervisor node"),
    ("move", "to another place"),
    ("convert", "into something else, for good"),
    ("upload", "sends a local file"),
    ("download", "lets the other side fetch a file"),
    ("drain", "Kubernetes' own word"),
    ("evict", "Kubernetes' own word"),
    ("cordon", "Kubernetes' own word"),
    ("uncordon", "Kubernetes' own word"),
    ("uninstall", "the opposite of an installation"),
    ("copy", "brings a file from one machine to another"),
    ("snapshot", "saves a state that can be gone back to"),
    ("restore", "goes back to a saved state"),
    ("rollback", "Helm's own word: goes back to a revision"),
    ("rotate", "replaces a secret by a new one everywhere"),
    ("diagnose", "walks a chain and names the first broken link"),
    ("export", "the NFS word for a shared folder"),
    ("http", "a request through the API server"),
    ("ask", "a request whose answer is a report"),
    ("request", "a request to something inside the cluster"),
    ("pin", "trusts exactly this key"),
    ("fail", "makes the proof that is running fail"),
];

/// Nouns and language words that are complete as they are.
const WORDS: &[&str] = &[
    "step",
    "once",
    "forget_once",
    "forget_leftover",
    "note_leftover",
    "parallel",
    "retry",
    "param",
    "prove",
    "warn",
    "confirm",
    "secret",
    "changed",
    "now",
    "sleep",
    "site",
    "table",
    "template",
    "template_file",
    "lint",
    "versions",
    "sha256",
    "node",
    "nodes",
    "hosts",
    "node_names",
    "node_ips",
    "gpu_nodes",
    "gpu_count",
    "scratch_nodes",
    "data_device",
    "system",
    "role",
    "ssh",
    "facts",
    "script",
    "inventory",
    "utilization",
    "passthrough_report",
    "iommu_report",
    "logs",
    "exec",
    "events",
    "explain_pending",
    "status",
    "ownership",
    "kubeconfig",
    "add",
    "contains",
    "len",
    "exit",
    "timestamp",
    "help",
    "copy_to",
    "copy_from",
    "agent_run",
    "history",
    "manifest",
    "port_forward",
    "values",
    "group",
    "from_cluster",
    "cluster_nodes",
    "host",
    "tunnel",
    "tasks",
    "log",
];

/// Words of the language that cannot be names.
const RESERVED: &[&str] = &[
    "until",
    "default",
    "export",
    "shared",
    "static",
    "package",
    "module",
    "go",
    "goto",
    "spawn",
    "thread",
    "async",
    "await",
    "sync",
    "new",
    "match",
    "case",
    "with",
    "use",
    "super",
    "public",
    "protected",
    "var",
    "void",
    "null",
    "nil",
    "yield",
];

fn ours() -> (&'static Reference, Vec<Function>) {
    let r = Reference::builtin();
    let list = r.functions.iter().filter(|f| !f.standard && f.form != Form::Operator).cloned().collect();
    (r, list)
}

fn shown(f: &Function) -> bool {
    !matches!(f.name.as_str(), "to_string" | "to_debug") && !matches!(f.name.as_str(), "exit" | "timestamp")
}

fn report(bad: &BTreeSet<String>, rule: &str) {
    assert!(bad.is_empty(), "{rule}:\n  {}", bad.iter().cloned().collect::<Vec<_>>().join("\n  "));
}

#[test]
fn every_function_has_a_sentence() {
    let (_, list) = ours();
    assert!(list.len() > 100, "only {} functions are registered", list.len());
    let bad = list
        .iter()
        .filter(|f| shown(f))
        .filter(|f| {
            let s = f.summary();
            s.is_empty() || s.chars().count() > 90 || !s.ends_with('.')
        })
        .map(|f| format!("{}: `{}`", f.signature(), f.summary()))
        .collect();
    report(&bad, "the first line of a doc is one sentence of at most 90 characters");
}

#[test]
fn every_function_has_an_example() {
    let (_, list) = ours();
    let bad = list
        .iter()
        .filter(|f| shown(f) && f.form != Form::Property && !(f.module.is_empty() && f.name == "sleep"))
        .filter(|f| !(f.doc.contains("# Example") && f.doc.contains("```rhai")))
        .map(Function::signature)
        .collect();
    report(&bad, "every function shows an example");
}

#[test]
fn names_come_from_one_list() {
    let (_, list) = ours();
    let bad = list
        .iter()
        .filter(|f| shown(f) && f.form != Form::Property)
        .filter(|f| {
            let first = f.name.split('_').next().unwrap_or_default();
            !VERBS.iter().any(|(v, _)| *v == first) && !WORDS.contains(&f.name.as_str())
        })
        .map(Function::signature)
        .collect();
    report(&bad, "a function begins with a verb of the list");
}

#[test]
fn no_name_and_no_option_is_a_word_of_the_language() {
    let (r, list) = ours();
    let mut bad: BTreeSet<String> =
        list.iter().filter(|f| RESERVED.contains(&f.name.as_str())).map(Function::signature).collect();
    for (module, o) in &r.options {
        for x in o.fields.iter().filter(|x| RESERVED.contains(&x.name)) {
            bad.insert(format!("option `{}` of {module}::{}", x.name, o.function));
        }
    }
    report(&bad, "reserved words cannot be written in a recipe");
}

#[test]
fn declared_options_belong_to_a_function_and_say_what_they_do() {
    let (r, list) = ours();
    let mut bad = BTreeSet::new();
    for (module, o) in &r.options {
        let takes =
            |f: &&Function| f.module == *module && f.name == o.function && f.params.iter().any(|p| p.name == o.param);
        if !list.iter().any(|f| takes(&f)) {
            bad.insert(format!("{module}::{} has no parameter `{}`", o.function, o.param));
        }
        for x in o.fields.iter().filter(|x| !x.doc.trim_end().ends_with('.') && !x.doc.trim_end().ends_with('?')) {
            bad.insert(format!("option `{}` of {module}::{}: `{}`", x.name, o.function, x.doc.trim()));
        }
    }
    report(&bad, "options are declared for a map that exists, with a sentence each");
}

#[test]
fn at_most_three_positional_arguments() {
    let (_, list) = ours();
    let bad = list
        .iter()
        .filter(|f| shown(f))
        .filter(|f| {
            f.params
                .iter()
                .skip(usize::from(f.form == Form::Method))
                .filter(|p| !matches!(p.ty.as_str(), "Map" | "Fn" | "Duration"))
                .count()
                > 3
        })
        .map(Function::signature)
        .collect();
    report(&bad, "more than three arguments (beside a limit and a function) belong into the options");
}

#[test]
fn recipes_of_the_program_have_no_findings() {
    for (path, text) in gpuhost::embed::all().iter().filter(|(p, _)| p.ends_with(".rhai")) {
        let recipe =
            gpuhost::sources::Text { name: format!("{}{path}", gpuhost::embed::PREFIX), text: (*text).to_owned() };
        let checked = gpuhost::check::command::recipe(&recipe);
        assert!(checked.findings.is_empty(), "{path}: {:#?}", checked.findings);
    }
}
