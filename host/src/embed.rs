//! The recipes, scripts and site file that the binary carries.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// How the source of an embedded file is named in errors.
pub const PREFIX: &str = "<gpuhost>/";

/// A source's name as one types it: without the mark of what this program carries.
#[must_use]
pub fn typed(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// All embedded files: path in the project, text.
#[must_use]
pub fn all() -> &'static [(&'static str, &'static str)] {
    FILES
}

/// The text of an embedded file, by its path in the project (`recipes/deploy.rhai`).
#[must_use]
pub fn get(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(p, _)| *p == path).map(|(_, text)| *text)
}

/// The embedded recipe or script that `name` means: `deploy`, `deploy.rhai` or `recipes/deploy.rhai`.
#[must_use]
pub fn recipe(name: &str) -> Option<(&'static str, &'static str)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let ways = [
        name.to_owned(),
        format!("{name}.rhai"),
        format!("recipes/{name}"),
        format!("recipes/{name}.rhai"),
        format!("scripts/{name}"),
        format!("scripts/{name}.rhai"),
    ];
    FILES.iter().find(|(p, _)| p.ends_with(".rhai") && ways.iter().any(|w| w == p)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_recipe_by_its_short_name() {
        for name in ["deploy", "deploy.rhai", "recipes/deploy.rhai", "./recipes/deploy.rhai"] {
            assert_eq!(recipe(name).map(|r| r.0), Some("recipes/deploy.rhai"), "{name}");
        }
        assert!(recipe("site.toml").is_none());
        assert!(get("recipes/site.toml").is_some());
    }
}
