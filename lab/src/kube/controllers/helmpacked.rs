//! Charts that come as an archive in their HelmChart: rendered by the `helm` of this machine, where it has one; otherwise
//! their release is recorded, and that nothing runs for it. Grade: source (Helm renders them itself).
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::wire::blind;
use gpuhost_stdlib::wire::chart::{Archive, read};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::super::charts::{Chart, Hook};
use super::super::cx::Cx;
use super::super::objects::parse_yaml;
use super::super::text::{arr, s, sha256, sha256_of, unb64};

/// How long the program may take, by this machine's clock.
const LIMIT: Duration = Duration::from_secs(60);

/// What a chart is rendered with.
pub struct Order {
    /// Release name.
    pub release: String,
    /// Namespace of the release.
    pub namespace: String,
    /// Whether a revision is deployed already.
    pub upgrade: bool,
    /// Values.
    pub values: Value,
    archive: Vec<u8>,
    kubernetes: String,
    apis: Vec<String>,
}

impl Order {
    /// The order of a HelmChart with `chartContent`.
    #[must_use]
    pub fn of(cx: &Cx, chart: &Value, namespace: &str, upgrade: bool, values: Value) -> Self {
        let content: String = s(chart, "/spec/chartContent").split_whitespace().collect();
        let mut apis: Vec<String> = Vec::new();
        for k in cx.c.store.kinds() {
            let of = if k.group.is_empty() { k.version.clone() } else { format!("{}/{}", k.group, k.version) };
            apis.extend([of.clone(), format!("{of}/{}", k.kind)]);
        }
        apis.sort();
        apis.dedup();
        Order {
            release: s(chart, "/metadata/name").to_owned(),
            namespace: namespace.to_owned(),
            upgrade,
            values,
            archive: unb64(&content).unwrap_or_default(),
            kubernetes: cx.c.version.clone(),
            apis,
        }
    }

    /// Where the cluster keeps what came of it.
    fn place(&self) -> String {
        format!("packed/{}/{}", self.namespace, self.release)
    }

    /// What tells orders apart. The kinds that the chart itself brings (`own`, as the API lists them) do not: they come
    /// between its rendering and its last hook.
    fn hash(&self, own: &[String]) -> String {
        let of = sha256_of(&self.archive);
        let apis: Vec<&String> = self.apis.iter().filter(|a| !own.contains(a)).collect();
        sha256(&format!("{of}{}{}{}{apis:?}", self.upgrade, self.values, self.kubernetes))
    }

    /// Whether what the cluster keeps came of this order.
    fn made_this(&self, known: &Value) -> bool {
        let own: Vec<String> = arr(known, "/own").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        known["hash"] == *self.hash(&own)
    }

    fn args(&self, file: &str) -> Vec<String> {
        let version = self.kubernetes.split(['+', '-']).next().unwrap_or_default();
        let mut out = ["template", &self.release, file, "--namespace", &self.namespace, "--include-crds"]
            .map(str::to_owned)
            .to_vec();
        out.extend(["--values", "-", "--kube-version", version].map(str::to_owned));
        if self.upgrade {
            out.push("--is-upgrade".to_owned());
        }
        out.extend(["--api-versions".to_owned(), self.apis.join(",")]);
        out
    }

    /// Starts to render, unless that is done. Time stands until it is.
    pub fn begin(self, cx: &Cx) {
        let place = self.place();
        if cx.c.apps.get(&place).is_some_and(|known| self.made_this(known)) {
            return;
        }
        let (lab, cluster) = (cx.lab.clone(), cx.c.id.clone());
        let mark = lab.clock().busy_guard();
        lab.rt().clone().spawn(async move {
            let mut found = match Clock::Real.within(LIMIT, self.run()).await {
                Some(Ok(Some(text))) => json!({"manifest": text}),
                Some(Ok(None)) => json!({}),
                Some(Err(text)) => json!({"error": text}),
                None => json!({"error": format!("Error: helm did not end within {} s", LIMIT.as_secs())}),
            };
            let own = found["manifest"].as_str().map(brought).unwrap_or_default();
            found["hash"] = self.hash(&own).into();
            found["own"] = own.into();
            lab.with(|w| w.clusters.get_mut(&cluster).map(|c| c.apps.insert(place, found)));
            drop(mark);
        });
    }

    /// Renders in a folder of its own; `None` without the program.
    async fn run(&self) -> Result<Option<String>, String> {
        let hash = self.hash(&[]);
        let folder = std::env::temp_dir().join(format!("gpuhost-lab-{}-{}", std::process::id(), &hash[..16]));
        let out = self.run_in(&folder).await;
        let _ = tokio::fs::remove_dir_all(&folder).await;
        out
    }

    async fn run_in(&self, folder: &PathBuf) -> Result<Option<String>, String> {
        let lost = |e: std::io::Error| format!("Error: the lab cannot run helm: {e}");
        let file = folder.join(format!("{}.tgz", self.release));
        tokio::fs::create_dir_all(folder).await.map_err(lost)?;
        tokio::fs::write(&file, &self.archive).await.map_err(lost)?;
        let spawned = tokio::process::Command::new("helm")
            .args(self.args(&file.display().to_string()))
            .current_dir(folder)
            // it has no cluster, no repositories and no plugins of the user's
            .env("HOME", folder)
            .env("KUBECONFIG", folder.join("none"))
            .env("HELM_CONFIG_HOME", folder)
            .env("HELM_CACHE_HOME", folder)
            .env("HELM_DATA_HOME", folder)
            .env("HELM_PLUGINS", folder.join("none"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(lost(e)),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // one that ends early does not read it: its own words say why
            let _ = stdin.write_all(self.values.to_string().as_bytes()).await;
        }
        let out = child.wait_with_output().await.map_err(lost)?;
        if out.status.success() {
            return Ok(Some(String::from_utf8_lossy(&out.stdout).into_owned()));
        }
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let words =
            said.lines().skip_while(|l| !l.starts_with("Error: ")).take_while(|l| !l.starts_with("Use --debug"));
        let words: String = words.collect::<Vec<_>>().join("\n");
        let line = words.strip_prefix("Error: ").unwrap_or(said.trim());
        let verb = if self.upgrade { "UPGRADE" } else { "INSTALLATION" };
        Err(format!("Error: {verb} FAILED: {}", line.replace(&file.display().to_string(), &self.release)))
    }

    /// The chart as it was rendered.
    ///
    /// # Errors
    /// Helm's own words.
    pub fn made(&self, cx: &Cx) -> Result<Chart, String> {
        let archive = read(&self.archive).map_err(|why| format!("Error: INSTALLATION FAILED: {why}"))?;
        let known = cx.c.apps.get(&self.place()).filter(|known| self.made_this(known));
        if let Some(text) = known.and_then(|k| k["error"].as_str()) {
            return Err(text.to_owned());
        }
        let mut chart = described(archive);
        match known.and_then(|k| k["manifest"].as_str()) {
            Some(text) => split(text, &mut chart),
            None => chart.notes = format!("{} is {}", blind::chart(&chart.name), blind::NOT_SIMULATED),
        }
        Ok(chart)
    }
}

/// The kinds that the definitions of a manifest bring, as the API lists them; their groups, too.
fn brought(manifest: &str) -> Vec<String> {
    let mut chart = Chart::default();
    split(manifest, &mut chart);
    let all = chart.definitions.iter().chain(&chart.objects).filter(|o| o["kind"] == "CustomResourceDefinition");
    let of = |d: &Value| {
        let (group, kind) = (s(d, "/spec/group").to_owned(), s(d, "/spec/names/kind").to_owned());
        let versions = arr(d, "/spec/versions").iter().map(|v| s(v, "/name").to_owned()).collect::<Vec<_>>();
        versions.into_iter().flat_map(move |v| [format!("{group}/{v}"), format!("{group}/{v}/{kind}")])
    };
    all.flat_map(of).collect()
}

/// A chart without its objects.
fn described(a: Archive) -> Chart {
    Chart {
        name: s(&a.metadata, "/name").to_owned(),
        version: s(&a.metadata, "/version").to_owned(),
        kube: s(&a.metadata, "/kubeVersion").to_owned(),
        values: a.values,
        schema: a.schema,
        metadata: a.metadata,
        ..Chart::default()
    }
}

/// Definitions, hooks and the release's own objects out of what helm printed.
fn split(text: &str, chart: &mut Chart) {
    for doc in format!("\n{text}").split("\n---\n").filter(|d| !d.trim().is_empty()) {
        let object = parse_yaml(doc);
        if !object["kind"].is_string() {
            continue;
        }
        let path = doc.lines().find_map(|l| l.strip_prefix("# Source: ")).unwrap_or_default().to_owned();
        if path.split('/').any(|part| part == "crds") && object["kind"] == "CustomResourceDefinition" {
            chart.definitions.push(object);
        } else if let Some(events) = object["metadata"]["annotations"]["helm.sh/hook"].as_str() {
            let events = events.split(',').map(|e| e.trim().to_owned()).collect();
            chart.hooks.push(Hook { path, text: doc.trim().to_owned(), events, object });
        } else {
            chart.manifest.push_str(&format!("---\n{}\n", doc.trim()));
            chart.objects.push(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helm_prints_is_told_apart() {
        let text = "---\n# Source: web/crds/a.yaml\nkind: CustomResourceDefinition\nmetadata: {name: a}\n---\n# Source: web/templates/cm.yaml\nkind: ConfigMap\nmetadata: {name: b}\n---\n# Source: web/templates/none.yaml\n---\n# Source: web/templates/job.yaml\nkind: Job\nmetadata: {name: c, annotations: {\"helm.sh/hook\": \"pre-install, pre-upgrade\"}}\n";
        let mut chart = Chart::default();
        split(text, &mut chart);
        assert_eq!((chart.definitions.len(), chart.objects.len(), chart.hooks.len()), (1, 1, 1));
        assert_eq!(chart.hooks[0].events, ["pre-install", "pre-upgrade"]);
        assert_eq!(chart.manifest, "---\n# Source: web/templates/cm.yaml\nkind: ConfigMap\nmetadata: {name: b}\n");
    }

    #[test]
    fn a_rendering_stays_when_the_charts_own_kinds_arrive() {
        let text = "---\n# Source: web/crds/a.yaml\nkind: CustomResourceDefinition\nmetadata: {name: as.x.io}\nspec: {group: x.io, names: {kind: A}, versions: [{name: v1}]}\n";
        let own = brought(text);
        assert_eq!(own, ["x.io/v1", "x.io/v1/A"]);
        let order = |apis: &[&str]| Order {
            release: "web".into(),
            namespace: "default".into(),
            upgrade: false,
            values: Value::Null,
            archive: Vec::new(),
            kubernetes: "v1.36.2".into(),
            apis: apis.iter().map(|a| (*a).to_owned()).collect(),
        };
        let known = json!({"hash": order(&["v1", "v1/Pod"]).hash(&own), "own": own});
        assert!(order(&["v1", "v1/Pod", "x.io/v1", "x.io/v1/A"]).made_this(&known));
        assert!(!order(&["v1", "v1/Pod", "y.io/v1", "y.io/v1/B"]).made_this(&known));
    }
}
