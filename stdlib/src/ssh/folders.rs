//! Whole folders both ways: one look for all files, then only those that differ.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::{Op, OpScope};

use super::exec::tail;
use super::host::Host;
use super::options::{FileOptions, RunOptions};
use super::quote::{quote, words};
use super::transfer::local_digest;

/// Files on their way at the same time.
const AT_ONCE: usize = 6;

/// SHA-256 and size by path below a folder of the host; empty when there is no such folder.
async fn there(host: &Host, ctx: &Ctx, path: &str, runs: &RunOptions) -> OpResult<BTreeMap<String, (String, u64)>> {
    // Names with line breaks come escaped, with a backslash in front of the line.
    let script = format!(
        "cd {} 2>/dev/null || exit 0\nfind . -type f -exec sha256sum {{}} + || exit 1\n\
         echo @sizes\nfind . -type f -exec stat -c %s {{}} +",
        quote(path)
    );
    let out = host.exec_look(ctx, &script, b"", runs).await?;
    if out.code != 0 {
        return Err(OpError::failed(format!("cannot read the folder {path}")).because(tail(out.stderr.as_bytes())));
    }
    let (sums, sizes) = out.stdout.split_once("@sizes\n").unwrap_or((&out.stdout, ""));
    let mut sizes = sizes.lines().map(|n| n.trim().parse().unwrap_or(0));
    let mut found = BTreeMap::new();
    for line in sums.lines() {
        let (escaped, line) = line.strip_prefix('\\').map_or((false, line), |l| (true, l));
        let Some((sum, name)) = line.split_once(' ') else { continue };
        let name = name.trim_start_matches([' ', '*']);
        let name = name.strip_prefix("./").unwrap_or(name);
        let name = if escaped { unescape(name) } else { name.to_owned() };
        found.insert(name, (sum.to_owned(), sizes.next().unwrap_or(0)));
    }
    Ok(found)
}

fn unescape(name: &str) -> String {
    let mut out = String::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (c, false) => out.push(c),
            _ => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
        }
    }
    out
}

/// Files (and empty folders) below a local folder, by relative path.
fn here(root: &Path, dir: &Path, files: &mut Vec<PathBuf>, empty: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut any = false;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        any = true;
        let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
        match std::fs::metadata(&path)?.is_dir() {
            true => here(root, &path, files, empty)?,
            false => files.push(relative),
        }
    }
    if !any {
        empty.push(dir.strip_prefix(root).unwrap_or(dir).to_owned());
    }
    Ok(())
}

/// Copies a local folder; what is there in addition stays.
pub(super) async fn copy_to(host: &Host, ctx: &Ctx, full: &Path, path: &str, options: FileOptions) -> OpResult<bool> {
    let (mut files, mut empty) = (Vec::new(), Vec::new());
    here(full, full, &mut files, &mut empty)
        .map_err(|e| OpError::failed(format!("cannot read the folder {}", full.display())).because(e.to_string()))?;
    files.sort();
    let mut wanted = Vec::new();
    for relative in files {
        let local = full.join(&relative);
        let (digest, len) = local_digest(&local)
            .await
            .map_err(|e| OpError::failed(format!("cannot read {}", local.display())).because(e.to_string()))?;
        wanted.push((relative.to_string_lossy().into_owned(), local, digest, len));
    }
    let all: Vec<_> = wanted.iter().map(|w| (&w.0, &w.2)).collect();
    let op = Op::write("ssh", "copy_to", host.name()).args(&json!([path, all, options.mode, options.owner]));
    ctx.run_op(op, |s| async move {
        let ctx = s.ctx();
        let runs = options.runs();
        let found = there(host, ctx, path, &runs).await?;
        // Modes and owners are looked at one by one, where they are asked for.
        let rights = options.mode.is_some() || options.owner.is_some();
        let differs = |w: &(String, PathBuf, String, u64)| rights || found.get(&w.0).is_none_or(|f| f.0 != w.2);
        let todo: Vec<_> = wanted.into_iter().filter(differs).collect();
        let mut changed = false;
        for part in todo.chunks(AT_ONCE) {
            let work: Vec<_> = part
                .iter()
                .map(|(relative, local, digest, len)| {
                    let (s, options) = (&s, &options);
                    async move {
                        let to = format!("{}/{relative}", path.trim_end_matches('/'));
                        host.put_local(s, local, &to, digest.clone(), *len, options).await
                    }
                })
                .collect();
            for done in ctx.clock.join_all(work).await {
                changed |= done?;
            }
        }
        let dirs: Vec<String> = empty.iter().map(|d| format!("{path}/{}", d.display())).collect();
        if !dirs.is_empty() {
            let out = host.exec_with(ctx, &format!("mkdir -p -- {}", words(&dirs)), b"", &runs).await?;
            if out.code != 0 {
                return Err(
                    OpError::failed(format!("cannot make folders below {path}")).because(tail(out.stderr.as_bytes()))
                );
            }
        }
        Ok(changed)
    })
    .await
}

/// Copies a folder of the host; what is here in addition stays.
pub(super) async fn copy_from(host: &Host, s: &OpScope, path: &str, full: &Path, local: &str) -> OpResult<bool> {
    let ctx = s.ctx();
    let found: Vec<_> = there(host, ctx, path, &RunOptions::default()).await?.into_iter().collect();
    let mut changed = false;
    for part in found.chunks(AT_ONCE) {
        let work: Vec<_> = part
            .iter()
            .map(|(relative, (digest, len))| async move {
                if Path::new(relative).components().any(|c| matches!(c, std::path::Component::ParentDir)) {
                    return Err(OpError::denied(format!("the host names a file outside its folder: {relative}")));
                }
                let from = format!("{path}/{relative}");
                host.fetch(s, &from, &full.join(relative), &format!("{local}/{relative}"), digest, *len).await
            })
            .collect();
        for done in ctx.clock.join_all(work).await {
            changed |= done?;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names() {
        assert_eq!(unescape("a\\nb\\\\c"), "a\nb\\c");
    }
}
