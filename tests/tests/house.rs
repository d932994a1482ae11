//! Rules of the house that no compiler checks: sizes, imports of the lab, dependencies, documents.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuhost_tests::root;

fn files(dir: &Path, ext: &[&str], out: &mut Vec<PathBuf>) {
    let Ok(list) = fs::read_dir(dir) else { return };
    for e in list.flatten() {
        let p = e.path();
        let name = e.file_name().to_string_lossy().into_owned();
        if p.is_dir() {
            // `editor/` is written by the program.
            if !["target", "editor"].contains(&name.as_str()) && !name.starts_with('.') {
                files(&p, ext, out);
            }
        } else if ext.iter().any(|x| name.ends_with(x)) {
            out.push(p);
        }
    }
}

fn sources(ext: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    files(&root(), ext, &mut out);
    assert!(!out.is_empty());
    out.sort();
    out
}

fn shown(p: &Path) -> String {
    p.strip_prefix(root()).unwrap_or(p).display().to_string()
}

#[test]
fn files_stay_small() {
    let long: Vec<String> = sources(&[".rs", ".rhai"])
        .iter()
        .filter_map(|p| {
            let n = fs::read_to_string(p).unwrap().lines().count();
            (n > 600).then(|| format!("{} ({n})", shown(p)))
        })
        .collect();
    assert!(long.is_empty(), "over 600 lines, split by noun: {long:?}");
}

#[test]
fn every_source_file_opens_with_a_sentence() {
    let bare: Vec<String> = sources(&[".rs", ".rhai"])
        .iter()
        .filter(|p| !shown(p).ends_with("tests.rs"))
        .filter(|p| !fs::read_to_string(p).unwrap().trim_start().starts_with("//!"))
        .map(|p| shown(p))
        .collect();
    assert!(bare.is_empty(), "no `//!` at the top: {bare:?}");
}

#[test]
fn the_lab_shares_only_wire_formats_and_the_clock() {
    let mut all = Vec::new();
    files(&root().join("lab/src"), &[".rs"], &mut all);
    let mut wrong = Vec::new();
    for p in all {
        for (i, line) in fs::read_to_string(&p).unwrap().lines().enumerate() {
            for part in line.split("gpuhost_stdlib::").skip(1) {
                if !(part.starts_with("wire") || part.starts_with("core::clock")) {
                    wrong.push(format!("{}:{}: {}", shown(&p), i + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the lab may use stdlib::wire and stdlib::core::clock only:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_host_prints() {
    let mut wrong = Vec::new();
    for dir in ["stdlib/src", "lab/src"] {
        let mut all = Vec::new();
        files(&root().join(dir), &[".rs"], &mut all);
        for p in all.iter().filter(|p| !shown(p).contains("tests")) {
            let text = fs::read_to_string(p).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (i, l) in code.lines().enumerate() {
                let l = l.trim_start();
                if l.starts_with("println!") || l.starts_with("eprintln!") || l.starts_with("print!(") {
                    wrong.push(format!("{}:{}", shown(p), i + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_command_line_knows_the_commands_and_no_command_knows_it() {
    let mut all = Vec::new();
    files(&root().join("host/src"), &[".rs"], &mut all);
    let uses = |p: &Path, word: &str| fs::read_to_string(p).unwrap().contains(word);
    let knows = |p: &&PathBuf| uses(p, "crate::cli") || p.ends_with("args.rs") && uses(p, "crate::");
    let wrong: Vec<String> = all.iter().filter(knows).map(|p| shown(p)).collect();
    assert!(wrong.is_empty(), "arguments stand in args.rs, which uses nothing of the crate: {wrong:?}");
}

/// Packages that this platform builds; the others need not even be downloaded.
fn metadata() -> serde_json::Value {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = rustc.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn dependencies_are_few_free_and_share_one_tls_stack() {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let locked = lock["package"].as_array().unwrap();
    assert!(locked.len() < 500, "{} locked packages", locked.len());
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    let mut bad = Vec::new();
    for p in locked {
        let name = p["name"].as_str().unwrap();
        *versions.entry(name).or_default() += 1;
        if ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"].contains(&name) {
            bad.push(format!("{name}: one TLS stack, rustls with ring"));
        }
    }
    for p in metadata()["packages"].as_array().unwrap() {
        let (name, licence) = (p["name"].as_str().unwrap(), p["license"].as_str().unwrap_or("none"));
        let free = [
            "MIT",
            "Apache-2.0",
            "BSD",
            "ISC",
            "Zlib",
            "Unicode",
            "CDLA",
            "MPL-2.0",
            "BSL-1.0",
            "CC0",
            "Unlicense",
            "0BSD",
            "bzip2",
        ];
        if !free.iter().any(|f| licence.contains(f)) {
            bad.push(format!("{name}: licence {licence}"));
        }
    }
    for one in ["ring", "rustls", "tokio", "hyper"] {
        if versions.get(one).copied().unwrap_or(0) > 1 {
            bad.push(format!("{one}: {} versions", versions[one]));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn the_book_lists_its_pages_and_links_lead_somewhere() {
    let src = root().join("docs/src");
    let summary = fs::read_to_string(src.join("SUMMARY.md")).unwrap();
    let mut pages = Vec::new();
    files(&src, &[".md"], &mut pages);
    let mut wrong = Vec::new();
    for p in &pages {
        let name = p.strip_prefix(&src).unwrap().display().to_string();
        if name != "SUMMARY.md" && !summary.contains(&format!("({name})")) {
            wrong.push(format!("{name} is not in SUMMARY.md"));
        }
    }
    pages.extend([root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("ARCHITECTURE.md")]);
    for p in pages {
        let text = fs::read_to_string(&p).unwrap();
        for link in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !p.parent().unwrap().join(target).exists() {
                wrong.push(format!("{}: {link}", shown(&p)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn documents_name_no_machine() {
    let mut wrong = Vec::new();
    for p in sources(&[".md", ".rs", ".rhai", ".toml"]) {
        let text = fs::read_to_string(&p).unwrap();
        for word in ["/work/main", "/work/wt", "/work/shared", "artifactory"] {
            if text.contains(word) && !shown(&p).ends_with("house.rs") {
                wrong.push(format!("{}: {word}", shown(&p)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
