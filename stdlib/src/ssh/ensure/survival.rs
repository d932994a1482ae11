//! Whatever a recipe says goes through the programs byte for byte, and no shell takes any of it for its own.
use rand::RngExt;
use rhai::{Dynamic, Map};

use super::tests::{map, me, reach_in, shells};

/// Characters that mean something to shells, to printf, to regular expressions, to terminals.
const NASTY: &str = "ab'\"\\$`!*?[]{}()<>|&;~# \t=%-+^@:,./é漢\u{1}\u{7f}\u{a0}😀";

fn text(rng: &mut impl rand::Rng, most: usize, more: &str) -> String {
    let alphabet: Vec<char> = NASTY.chars().chain(more.chars()).collect();
    let n = rng.random_range(1..=most);
    (0..n).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect()
}

/// A file name: no slash, not a name of the folder itself.
fn name(rng: &mut impl rand::Rng) -> String {
    format!("n{}", text(rng, 24, "").replace('/', "_"))
}

fn bytes(rng: &mut impl rand::Rng) -> Vec<u8> {
    let n = rng.random_range(0..300);
    (0..n).map(|_| rng.random_range(0..=255u8)).collect()
}

/// What stands in the folder, by path below it.
fn tree(root: &std::path::Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for e in std::fs::read_dir(&dir).unwrap().flatten() {
            out.push(e.path().strip_prefix(root).unwrap().to_string_lossy().into_owned());
            if e.file_type().unwrap().is_dir() {
                todo.push(e.path());
            }
        }
    }
    out.sort();
    out
}

struct Case {
    wanted: Map,
    files: Vec<(String, Vec<u8>)>,
    link: (String, String),
    line: (String, String),
    command: (String, String),
}

fn case(rng: &mut impl rand::Rng, root: &str) -> Case {
    let owned = |content: Dynamic| Dynamic::from(map(vec![("content", content), ("owner", me().into())]));
    let mut files = Map::new();
    let mut want = Vec::new();
    for kind in 0..4 {
        let path = format!("{root}/{kind}{}", name(rng));
        let (content, value) = match kind {
            0 => {
                let t = text(rng, 200, "\n\r");
                (t.clone().into_bytes(), Dynamic::from(t))
            }
            1 => {
                let b = bytes(rng);
                (b.clone(), Dynamic::from_blob(b))
            }
            2 => (Vec::new(), Dynamic::from(String::new())),
            _ => {
                let t = format!("{}\n\n\n", text(rng, 20, "\n"));
                (t.clone().into_bytes(), Dynamic::from(t))
            }
        };
        files.insert(path.as_str().into(), owned(value));
        want.push((path, content));
    }
    let link = (format!("{root}/l{}", name(rng)), format!("t{}", text(rng, 30, "")));
    let line = (format!("{root}/e{}", name(rng)), text(rng, 60, ""));
    // A command gets a text of the recipe's own quoting: here as one word through the environment of nothing.
    let made = format!("{root}/c{}", name(rng));
    let command = (made.clone(), text(rng, 60, "\n"));
    let entry = |k: &str, v: Dynamic| [(k.into(), v)].into_iter().collect::<Map>();
    let run = format!("printf %s {} >{}", crate::ssh::quote(&command.1), crate::ssh::quote(&made));
    let wanted = map(vec![
        ("files", files.into()),
        ("links", entry(&link.0, link.1.clone().into()).into()),
        ("lines", entry(&line.0, vec![Dynamic::from(line.1.clone())].into()).into()),
        ("directories", entry(&format!("{root}/d{}", name(rng)), map(vec![("mode", "0750".into())]).into()).into()),
        (
            "commands",
            entry(
                "x'$(touch /tmp/gpuhost-was-here)",
                map(vec![("command", run.into()), ("creates", made.into())]).into(),
            )
            .into(),
        ),
    ]);
    Case { wanted, files: want, link, line, command }
}

#[test]
fn any_bytes_survive_every_shell_and_none_is_interpreted() {
    let mut rng = rand::rng();
    for shell in shells() {
        for _ in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().display().to_string();
            let c = case(&mut rng, &root);
            let shown = format!("{shell:?} {:?}", c.wanted);
            assert_eq!(reach_in(&shell, &c.wanted).len(), 8, "{shown}");
            assert_eq!(reach_in(&shell, &c.wanted), Vec::<String>::new(), "{shown}");
            for (path, content) in &c.files {
                assert_eq!(&std::fs::read(path).unwrap(), content, "{path} {shown}");
            }
            assert_eq!(std::fs::read_link(&c.link.0).unwrap().to_str().unwrap(), c.link.1, "{shown}");
            assert_eq!(std::fs::read_to_string(&c.line.0).unwrap(), format!("{}\n", c.line.1), "{shown}");
            assert_eq!(std::fs::read_to_string(&c.command.0).unwrap(), c.command.1, "{shown}");
            // Nothing else came to be: no word of a text was run or took part in a redirection.
            assert_eq!(tree(dir.path()).len(), 8, "{:?} {shown}", tree(dir.path()));
        }
    }
}

#[test]
fn large_files_go_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}/big", dir.path().display());
    let content: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
    let text: String = "0123456789'\n".repeat(60_000);
    let mut files = Map::new();
    let owned = |content: Dynamic| Dynamic::from(map(vec![("content", content), ("owner", me().into())]));
    files.insert(path.as_str().into(), owned(Dynamic::from_blob(content.clone())));
    files.insert(format!("{path}.txt").as_str().into(), owned(text.clone().into()));
    let wanted = map(vec![("files", files.into())]);
    for shell in shells() {
        assert_eq!(reach_in(&shell, &wanted).len(), 2);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(std::fs::read_to_string(format!("{path}.txt")).unwrap(), text);
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(format!("{path}.txt")).unwrap();
    }
}
