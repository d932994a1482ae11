//! Files below granted paths, templates, YAML, JSON, TOML.
use std::path::{Component, Path, PathBuf};

use rhai::plugin::*;
use rhai::{Dynamic, Map, NativeCallContext};
use sha2::{Digest, Sha256};

use crate::core::ctx::{Ctx, RhaiResultOf};
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

/// The path without `.` and `..`, and with the links of its existing part followed: where it really leads.
fn real(p: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    let whole = std::path::absolute(p).unwrap_or_else(|_| p.to_owned());
    for c in whole.components() {
        match c {
            Component::ParentDir => {
                out.pop();
            }
            c => out.push(c),
        }
        if let Ok(target) = out.canonicalize() {
            out = target;
        }
    }
    out
}

/// The path if the run may use it: below the project folder or a path of `[permissions].files`.
pub(crate) fn granted(ctx: &Ctx, path: &str) -> OpResult<PathBuf> {
    let full = real(&ctx.base_dir.join(path));
    let mut roots = vec![real(&ctx.base_dir)];
    if let Some(site) = &ctx.site {
        let list = site.permissions.get("files").and_then(toml::Value::as_array);
        roots.extend(list.into_iter().flatten().filter_map(toml::Value::as_str).map(|p| real(&ctx.base_dir.join(p))));
    }
    if roots.iter().any(|r| full.starts_with(r)) {
        return Ok(full);
    }
    let path = path.strip_suffix("/.").unwrap_or(path);
    Err(OpError::refused(format!("`{path}` is outside the project folder"))
        .on(path)
        .hint(format!("grant it in the site file: [permissions] files = [\"{path}\"]")))
}

fn read(ctx: &Ctx, path: &str) -> OpResult<String> {
    let full = granted(ctx, path)?;
    std::fs::read_to_string(&full).map_err(|e| {
        OpError::not_found(format!("cannot read `{path}`"))
            .on(path)
            .because(e.to_string())
            .hint(format!("the path is taken from {}", ctx.base_dir.display()))
    })
}

fn parse<T>(what: &str, r: Result<T, String>) -> OpResult<T> {
    r.map_err(|e| OpError::invalid(format!("this is not valid {what}")).because(e))
}

fn from_json(v: &serde_json::Value) -> OpResult<Dynamic> {
    rhai::serde::to_dynamic(v).map_err(|e| OpError::invalid(e.to_string()))
}

fn render(text: &str, map: &Map) -> OpResult<String> {
    let mut env = minijinja::Environment::new();
    env.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    env.set_keep_trailing_newline(true);
    let ctx: serde_json::Value =
        rhai::serde::from_dynamic(&Dynamic::from(map.clone())).map_err(|e| OpError::invalid(e.to_string()))?;
    env.render_str(text, &ctx).map_err(|e| {
        OpError::invalid("the template cannot be rendered")
            .because(e.to_string())
            .hint("every name in `{{ }}` must be a key of the map")
    })
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// The text of a file below the project folder.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { print(read_file("notes.txt")); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn read_file(ncc: NativeCallContext, path: &str) -> RhaiResultOf<String> {
        read(&Ctx::of(&ncc)?, path).map_err(|e| e.into_rhai(&ncc))
    }

    /// Makes a file below the project folder hold this text; says whether it changed.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { write_file("out.txt", "text"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn write_file(ncc: NativeCallContext, path: &str, text: &str) -> RhaiResultOf<bool> {
        let (path, text) = (path.to_owned(), text.to_owned());
        crate::core::ctx::call(&ncc, |ctx| async move {
            let full = granted(&ctx, &path)?;
            let op = Op::write("file", "write_file", path.clone());
            ctx.run_op(op, |s| async move {
                let before = std::fs::read_to_string(&full).ok();
                if before.as_deref() == Some(text.as_str()) {
                    return Ok(false);
                }
                let change = Change::new(path.clone(), "content", before.map(Into::into), Some(text.clone().into()));
                s.act(path.clone(), vec![change], async {
                    let fail =
                        |e: std::io::Error| OpError::failed(format!("cannot write `{path}`")).because(e.to_string());
                    if let Some(dir) = full.parent() {
                        std::fs::create_dir_all(dir).map_err(fail)?;
                    }
                    std::fs::write(&full, &text).map_err(fail)?;
                    s.ctx().edge();
                    Ok(())
                })
                .await?;
                Ok(true)
            })
            .await
        })
    }

    /// A YAML file as a value.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { load_yaml("values.yaml"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn load_yaml(ncc: NativeCallContext, path: &str) -> RhaiResultOf<Dynamic> {
        let text = read(&Ctx::of(&ncc)?, path).map_err(|e| e.into_rhai(&ncc))?;
        parse("YAML", serde_saphyr::from_str::<serde_json::Value>(&text).map_err(|e| e.to_string()))
            .and_then(|v| from_json(&v))
            .map_err(|e| e.on(path).into_rhai(&ncc))
    }

    /// A JSON file as a value.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { load_json("values.json"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn load_json(ncc: NativeCallContext, path: &str) -> RhaiResultOf<Dynamic> {
        let text = read(&Ctx::of(&ncc)?, path).map_err(|e| e.into_rhai(&ncc))?;
        parse("JSON", serde_json::from_str::<serde_json::Value>(&text).map_err(|e| e.to_string()))
            .and_then(|v| from_json(&v))
            .map_err(|e| e.on(path).into_rhai(&ncc))
    }

    /// A TOML file as a map.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { load_toml("values.toml"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn load_toml(ncc: NativeCallContext, path: &str) -> RhaiResultOf<Map> {
        let text = read(&Ctx::of(&ncc)?, path).map_err(|e| e.into_rhai(&ncc))?;
        parse("TOML", text.parse::<toml::Table>().map_err(|e| e.to_string()))
            .map(|t| crate::site::script_table(&t))
            .map_err(|e| e.on(path).into_rhai(&ncc))
    }

    /// A value as YAML text.
    ///
    /// # Example
    /// ```rhai
    /// print(to_yaml(#{ a: 1 }));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_yaml(ncc: NativeCallContext, value: Dynamic) -> RhaiResultOf<String> {
        let v: serde_json::Value = rhai::serde::from_dynamic(&value)?;
        parse("YAML", serde_saphyr::to_string(&v).map_err(|e| e.to_string())).map_err(|e| e.into_rhai(&ncc))
    }

    /// A value as JSON text.
    ///
    /// # Example
    /// ```rhai
    /// require(to_json([1, "x"]) == "[1,\"x\"]", "compact");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_json(ncc: NativeCallContext, value: Dynamic) -> RhaiResultOf<String> {
        let v: serde_json::Value = rhai::serde::from_dynamic(&value)?;
        parse("JSON", serde_json::to_string(&v).map_err(|e| e.to_string())).map_err(|e| e.into_rhai(&ncc))
    }

    /// SHA-256 of a text, in hex.
    ///
    /// # Example
    /// ```rhai
    /// require(sha256("").len() == 64, "hex");
    /// ```
    pub fn sha256(text: &str) -> String {
        Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// A text with `{{ name }}` filled in from the map (Jinja); a missing name is an error.
    ///
    /// # Example
    /// ```rhai
    /// require(template("hello {{ name }}", #{ name: "lab" }) == "hello lab", "filled in");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn template(ncc: NativeCallContext, text: &str, values: Map) -> RhaiResultOf<String> {
        render(text, &values).map_err(|e| e.into_rhai(&ncc))
    }

    /// A template file below the project folder, filled in from the map.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { template_file("motd.j2", #{ name: "lab" }); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn template_file(ncc: NativeCallContext, path: &str, values: Map) -> RhaiResultOf<String> {
        let text = read(&Ctx::of(&ncc)?, path).map_err(|e| e.into_rhai(&ncc))?;
        render(&text, &values).map_err(|e| e.on(path).into_rhai(&ncc))
    }
}
