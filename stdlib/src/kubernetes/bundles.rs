//! The folders that Fleet applies, looked at before they are pushed: keys that it drops, mistakes in manifests.
use std::path::Path;

use serde_json::Value;

use super::describe;
use super::validate::check_object;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::wire::fleet;

/// Paths of the YAML files below `dir`, in order, each with its name below `name`.
fn files(dir: &Path, name: &str, out: &mut Vec<(std::path::PathBuf, String)>) -> OpResult<()> {
    let bad = |e: std::io::Error| {
        OpError::not_found(format!("cannot read `{name}`"))
            .on(name)
            .because(e.to_string())
            .hint("name the folder that Fleet follows")
    };
    let mut entries = std::fs::read_dir(dir).map_err(bad)?.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for e in entries {
        let own = format!("{name}/{}", e.file_name().to_string_lossy());
        if e.path().is_dir() {
            files(&e.path(), &own, out)?;
        } else if own.ends_with(".yaml") || own.ends_with(".yml") {
            out.push((e.path(), own));
        }
    }
    Ok(())
}

/// What is wrong with one file of a bundle.
#[must_use]
pub fn file_faults(name: &str, text: &str) -> Vec<String> {
    let docs = match serde_saphyr::from_multiple::<Value>(text) {
        Ok(docs) => docs,
        Err(e) => return vec![format!("{name}: the YAML cannot be read: {e}")],
    };
    if name.ends_with("/fleet.yaml") {
        let all = docs.iter().flat_map(fleet::dropped);
        return all.map(|key| format!("{name}: {key}: Fleet drops this key without a word")).collect();
    }
    let objects = docs.iter().filter(|d| d["kind"].is_string());
    let faults =
        |o: &Value| check_object(o).iter().map(|f| format!("{name}: {}: {f}", describe(o))).collect::<Vec<_>>();
    objects.flat_map(faults).collect()
}

/// What is wrong with the bundles below a folder: keys of `fleet.yaml` that Fleet would drop without a word, fields that
/// no built-in kind has, entries that appear twice.
///
/// # Errors
/// `denied` outside the project folder; `not_found` without the folder.
pub async fn check_bundles(ctx: &Ctx, folder: &str) -> OpResult<Vec<String>> {
    let op = Op::read("kubernetes", "check_bundles", folder);
    ctx.run_op(op, |s| async move {
        let dir = crate::flow::files::granted(s.ctx(), folder)?;
        let mut all = Vec::new();
        files(&dir, folder.trim_end_matches('/'), &mut all)?;
        let mut out = Vec::new();
        for (path, name) in all {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| OpError::not_found(format!("cannot read `{name}`")).on(&name).because(e.to_string()))?;
            out.extend(file_faults(&name, &text));
        }
        Ok(out)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_say_what_would_be_lost() {
        let fleet = "targetCustomizations:\n- name: gpu\n  patches: [{patch: x}]\n";
        assert_eq!(
            file_faults("g/a/fleet.yaml", fleet),
            ["g/a/fleet.yaml: targetCustomizations[0].patches: Fleet drops this key without a word"]
        );
        let twice = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: i\n    env: [{name: A, value: '1'}, {name: A, value: '2'}]\n";
        let said = file_faults("g/a/pod.yaml", twice);
        assert!(said.len() == 1 && said[0].contains("env[1]: a second entry named `A`"), "{said:?}");
        assert_eq!(file_faults("g/values.yaml", "replicas: 3\n"), Vec::<String>::new());
        assert!(file_faults("g/x.yaml", "a: [")[0].contains("cannot be read"));
    }
}
