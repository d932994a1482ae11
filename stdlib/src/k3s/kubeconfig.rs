//! The kubeconfig as a file: its address proven, readable by its owner only, merged into the user's on request.
use std::path::PathBuf;

use serde_json::{Value, json};

use super::config::to_yaml;
use super::connect::{PORT, rewrite_kubeconfig};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::kubernetes::Cluster;
use crate::options;

options! {
    /// Where the kubeconfig goes.
    pub struct KubeconfigOptions {
        /// Address of the API server in it; default: the cluster's.
        address: String = String::new(),
        /// Merge it into an existing file instead of replacing that.
        merge: bool = false,
    }
}

/// Adds cluster, user and context of `ours` to `theirs`, or replaces those of the same name; the rest stays.
#[must_use]
pub fn merged(theirs: &Value, ours: &Value) -> Value {
    let mut out = if theirs.is_object() { theirs.clone() } else { json!({"apiVersion": "v1", "kind": "Config"}) };
    for list in ["clusters", "users", "contexts"] {
        let mut entries = out[list].as_array().cloned().unwrap_or_default();
        for new in ours[list].as_array().into_iter().flatten() {
            entries.retain(|e| e["name"] != new["name"]);
            entries.push(new.clone());
        }
        out[list] = Value::Array(entries);
    }
    if out["current-context"].as_str().is_none_or(str::is_empty) {
        out["current-context"] = ours["current-context"].clone();
    }
    out
}

/// `~/…` and paths below the project folder; the home folder's kubeconfig is what people mean by it.
fn target(ctx: &Ctx, path: &str) -> OpResult<PathBuf> {
    let Some(rest) = path.strip_prefix("~/") else { return crate::flow::files::granted(ctx, path) };
    if rest != ".kube/config" {
        return Err(OpError::refused(format!("`{path}` is outside the project folder"))
            .on(path)
            .hint("in the home folder only `~/.kube/config` is written"));
    }
    let home =
        std::env::var_os("HOME").ok_or_else(|| OpError::not_found("there is no home folder").hint("set HOME"))?;
    Ok(PathBuf::from(home).join(rest))
}

impl Cluster {
    /// Writes the kubeconfig to a file (0600) once its address is proven; says whether the file changed.
    ///
    /// # Errors
    /// `invalid` when the server's certificate is not valid for the address; `denied` for a lab's into the user's own.
    pub async fn write_kubeconfig(&self, ctx: &Ctx, path: &str, o: &KubeconfigOptions) -> OpResult<bool> {
        if ctx.lab && (path.starts_with('~') || std::path::Path::new(path).is_absolute()) {
            return Err(OpError::refused("a lab's kubeconfig is never written into the user's own")
                .on(path)
                .hint("`gpuhost lab serve` writes one of its own and prints its path"));
        }
        let file = target(ctx, path)?;
        let op = Op::write("k3s", "write_kubeconfig", path).args(&(&o.address, o.merge));
        ctx.run_op(op, |s| async move {
            let own = self.kubeconfig();
            let text = if o.address.is_empty() {
                own.reveal().to_owned()
            } else {
                rewrite_kubeconfig(own.reveal(), &o.address, self.name())?
            };
            let bad = |e: String| OpError::invalid("the kubeconfig cannot be read").because(e);
            let ours: Value = serde_saphyr::from_str(&text).map_err(|e| bad(e.to_string()))?;
            let server = ours["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default().to_owned();
            let address = server.trim_start_matches("https://").trim_end_matches(&format!(":{PORT}"));
            self.prove_address(s.ctx(), address.trim_matches(['[', ']'])).await?;
            let here = super::connect::for_this_machine(s.ctx(), &text)?;
            let ours: Value = serde_saphyr::from_str(&here).map_err(|e| bad(e.to_string()))?;
            let old = std::fs::read_to_string(&file).ok();
            let whole = match old.as_deref().filter(|_| o.merge) {
                Some(t) => {
                    let theirs = serde_saphyr::from_str(t).map_err(|e| bad(e.to_string()).on(path))?;
                    merged(&theirs, &ours)
                }
                None => ours,
            };
            let same = |t: &str| serde_saphyr::from_str::<Value>(t).is_ok_and(|v| v == whole);
            if old.as_deref().is_some_and(same) {
                return Ok(false);
            }
            let words = format!("context {} at {server}", self.name());
            let change =
                Change::new("this machine", format!("file {path}"), old.map(|_| "other".into()), Some(words.into()));
            s.act(path, vec![change], async {
                crate::site::write_private(&file, to_yaml(&whole).as_bytes()).map_err(|e| e.on(path))?;
                s.ctx().edge();
                Ok(())
            })
            .await?;
            Ok(true)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_others_have() {
        let entry = |n: &str, v: i64| json!({"name": n, "cluster": {"v": v}});
        let theirs =
            json!({"clusters": [entry("a", 1), entry("home", 1)], "users": [], "contexts": [], "current-context": "a"});
        let ours = json!({"clusters": [entry("home", 2)], "users": [{"name": "home"}], "contexts": [{"name": "home"}], "current-context": "home"});
        let m = merged(&theirs, &ours);
        assert_eq!(m["clusters"], json!([entry("a", 1), entry("home", 2)]));
        assert_eq!((m["current-context"].as_str(), m["users"].as_array().map(Vec::len)), (Some("a"), Some(1)));
        assert_eq!(merged(&m, &ours), m);
        assert_eq!(merged(&Value::Null, &ours)["current-context"], "home");
    }
}
