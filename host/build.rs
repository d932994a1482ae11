//! Lists the recipes and scripts of the project, so that the binary carries them without a hand-kept list.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn collect(dir: &Path, out: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path.extension().is_some_and(|e| ["rhai", "toml", "yaml", "yml", "md"].iter().any(|x| e == *x)) {
            out.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    let mut text = String::from("&[\n");
    for folder in ["recipes", "scripts"] {
        let dir = root.join(folder);
        println!("cargo:rerun-if-changed={}", dir.display());
        if !dir.is_dir() {
            continue;
        }
        let mut files = Vec::new();
        collect(&dir, &mut files)?;
        files.sort();
        for f in files {
            println!("cargo:rerun-if-changed={}", f.display());
            let name = f.strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
            writeln!(text, "    ({name:?}, include_str!({:?})),", f.canonicalize()?)?;
        }
    }
    text.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("embedded.rs"), text)?;
    Ok(())
}
