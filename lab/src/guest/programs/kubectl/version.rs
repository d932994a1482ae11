//! `kubectl version`.
use super::super::Call;
use super::request::{JSON, ask, server};
use super::words::Words;

/// The Kustomize that kubectl has built in, by its minor (1.36 as 1.37 says it).
const KUSTOMIZE: &[(u32, &str)] = &[(32, "v5.5.0"), (33, "v5.6.0"), (34, "v5.7.1"), (35, "v5.7.1"), (36, "v5.8.1")];

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "client")?;
    let minor = super::own_minor(c);
    c.line(&format!("Client Version: {}", super::own_version(c)));
    if let Some((_, version)) = KUSTOMIZE.iter().find(|k| k.0 == minor) {
        c.line(&format!("Kustomize Version: {version}"));
    }
    if w.on("client") {
        return Some(0);
    }
    let at = match server(c) {
        Ok(at) => at,
        Err(code) => return Some(code),
    };
    let (_, v) = ask(c, &at, "/version", "", JSON).await;
    c.line(&format!("Server Version: {}", v["gitVersion"].as_str().unwrap_or_default()));
    Some(0)
}
