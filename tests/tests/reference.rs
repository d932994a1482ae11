//! The reference pages and editor stubs in the tree are those of the code.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gpuhost::reference::Reference;
use gpuhost_tests::root;

fn texts(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read_to_string(e.path()).unwrap()))
        .collect()
}

/// `GPUHOST_WRITE=1` brings the tree up to date instead of failing.
#[test]
fn pages_and_stubs_are_up_to_date() {
    let made = tempfile::tempdir().unwrap();
    gpuhost::doc::pages::write(Reference::builtin(), made.path()).unwrap();
    let mut stale = Vec::new();
    for (part, place) in [("reference", "docs/src/reference"), ("editor", "editor")] {
        let (new, place) = (texts(&made.path().join(part)), root().join(place));
        if std::env::var_os("GPUHOST_WRITE").is_some() {
            fs::create_dir_all(&place).unwrap();
            for old in texts(&place).keys().filter(|n| !new.contains_key(*n)) {
                fs::remove_file(place.join(old)).unwrap();
            }
            for (name, text) in &new {
                fs::write(place.join(name), text).unwrap();
            }
        }
        let kept = texts(&place);
        let names = new.keys().chain(kept.keys());
        stale.extend(names.filter(|n| new.get(*n) != kept.get(*n)).map(|n| format!("{part}/{n}")));
    }
    stale.sort();
    stale.dedup();
    assert!(
        stale.is_empty(),
        "the code says other things than {stale:?}; run `GPUHOST_WRITE=1 cargo test --workspace --test reference`"
    );
}
