//! The examples of the reference, and the scene that they play in: the default site, deployed in the lab.
use gpuhost::reference::Reference;

/// What examples may take for granted.
pub const PRELUDE: &str = r#"
let pve = proxmox::connect(site().proxmox);
let cluster = k3s::connect(site().hosts("server"));
let host = site().hosts("agent")[0];
"#;

/// What stands in the cluster for them.
pub const SCENE: &str = r#"
cluster.ensure_namespace("shop");
let web = #{
    apiVersion: "v1", kind: "Pod", metadata: #{ name: "web" },
    spec: #{ containers: [#{ name: "web", image: "registry.k8s.io/pause:3.10" }] },
};
cluster.apply(web, #{ namespace: "shop" });
cluster.apply(web, #{ namespace: "default" });
cluster.wait("pod", "web", "condition=Ready", 5.minutes, #{ namespace: "shop" });
cluster.wait("pod", "web", "condition=Ready", 5.minutes, #{ namespace: "default" });
"#;

/// First words of functions whose examples others would miss something after: each has a world of its own.
const ALONE: &[&str] = &[
    "remove",
    "delete",
    "uninstall",
    "stop",
    "shutdown",
    "reboot",
    "reset",
    "suspend",
    "drain",
    "restore",
    "rollback",
    "migrate",
    "convert",
    "move",
    "rotate",
];

/// One example of the reference.
pub struct Example {
    /// Function, number of its parameters, number of the example.
    pub name: String,
    /// Text.
    pub text: String,
    /// Whether others would miss something after it.
    pub alone: bool,
}

/// All examples that run on a deployed lab.
///
/// # Panics
/// When there are suspiciously few.
#[must_use]
pub fn all() -> Vec<Example> {
    let r = Reference::builtin();
    let mut out: Vec<Example> = Vec::new();
    for f in r.functions.iter().filter(|f| !f.standard) {
        for (i, block) in f.doc.split("```rhai").skip(1).enumerate() {
            // After the fence: the rest of its line, which may carry attributes.
            let (attributes, rest) = block.split_once('\n').unwrap_or_default();
            let text = rest.split("```").next().unwrap_or_default().to_owned();
            if attributes.contains("check") || out.iter().any(|e| e.text == text) {
                continue;
            }
            let first = f.name.split('_').next().unwrap_or_default();
            let of = if f.module.is_empty() { String::new() } else { format!("{}::", f.module) };
            let name = format!("{of}{}/{} #{}", f.name, f.params.len(), i + 1);
            out.push(Example { name, text, alone: ALONE.contains(&first) });
        }
    }
    assert!(out.len() > 150, "only {} examples", out.len());
    out
}
