//! The charts that the lab's repositories hold, and the objects they make. Grade: source (chart values), estimate (timings).
mod gpu_operator;
mod monitoring;
mod platform;
mod system;
mod traefik;
mod values;

use gpuhost_stdlib::wire::blind;
use gpuhost_stdlib::wire::charts::rancher_refuses;
use serde_json::Value;

/// What a release asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Release name.
    pub release: String,
    /// Namespace.
    pub namespace: String,
    /// Chart name or URL.
    pub chart: String,
    /// Repository.
    pub repo: String,
    /// Version; empty: the newest.
    pub version: String,
    /// Version of the cluster.
    pub kubernetes: String,
    /// Values.
    pub values: Value,
}

/// An object that Helm makes at a moment of a release's life, beside the release's own.
#[derive(Debug, Clone)]
pub struct Hook {
    /// File in the chart.
    pub path: String,
    /// Its YAML.
    pub text: String,
    /// When it is made: `pre-install`, `post-upgrade` …
    pub events: Vec<String>,
    /// The object.
    pub object: Value,
}

/// A rendered chart.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Chart name.
    pub name: String,
    /// Chart version.
    pub version: String,
    /// CustomResourceDefinitions by name.
    pub crds: Vec<&'static str>,
    /// Objects.
    pub objects: Vec<Value>,
    /// Kubernetes versions it takes, as `Chart.yaml` says it; empty: any.
    pub kube: String,
    /// The chart's own values, as far as they are known.
    pub values: Value,
    /// `Chart.yaml`, where it is at hand.
    pub metadata: Value,
    /// The chart's schema of its values, where it is at hand.
    pub schema: Value,
    /// Definitions that are made before everything else and stay.
    pub definitions: Vec<Value>,
    /// Its templates by file, as far as they are known.
    pub templates: Vec<(String, String)>,
    /// Hooks.
    pub hooks: Vec<Hook>,
    /// The manifest as helm rendered it; empty: written from the objects.
    pub manifest: String,
    /// What the release's notes say; for a chart that is not in the catalogue, that its workload is not simulated.
    pub notes: String,
}

type Render = fn(&Wanted) -> (Vec<&'static str>, Vec<Value>);

struct Entry {
    repos: &'static [&'static str],
    name: &'static str,
    versions: &'static [&'static str],
    /// The first minor of Kubernetes 1 that a version of the chart refuses.
    refuses: fn(&str) -> Option<u32>,
    render: Render,
}

const CATALOGUE: &[Entry] = &[
    Entry {
        repos: &["kubernetes-csi.github.io/csi-driver-nfs", "raw.githubusercontent.com/kubernetes-csi/csi-driver-nfs"],
        name: "csi-driver-nfs",
        versions: &["4.13.4", "4.13.3", "4.12.1", "4.11.0"],
        refuses: |_| None,
        render: system::csi_nfs,
    },
    Entry {
        repos: &["helm.ngc.nvidia.com/nvidia"],
        name: "gpu-operator",
        versions: gpu_operator::VERSIONS,
        refuses: |_| None,
        render: gpu_operator::render,
    },
    Entry {
        repos: &["charts.jetstack.io"],
        name: "cert-manager",
        versions: &["v1.20.2", "v1.19.1", "v1.16.1"],
        refuses: |_| None,
        render: platform::cert_manager,
    },
    Entry {
        repos: &["releases.rancher.com/server-charts"],
        name: "rancher",
        versions: &["2.15.1", "2.15.0", "2.14.3", "2.14.2", "2.13.6", "2.13.5", "2.13.0"],
        refuses: rancher_refuses,
        render: platform::rancher,
    },
    Entry {
        repos: &["hub.jupyter.org/helm-chart", "jupyterhub.github.io/helm-chart"],
        name: "jupyterhub",
        versions: &["4.4.0", "4.3.1", "4.2.0"],
        refuses: |_| None,
        render: platform::jupyterhub,
    },
    Entry {
        repos: &["prometheus-community.github.io/helm-charts"],
        name: "kube-prometheus-stack",
        versions: &["85.1.3", "85.1.0", "79.0.0"],
        refuses: |_| None,
        render: monitoring::render,
    },
];

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}

/// Renders a chart as helm would.
///
/// # Errors
/// Helm's own words: unknown repository, chart, version, or Kubernetes version.
pub fn render(w: &Wanted) -> Result<Chart, String> {
    if w.chart.contains("%{KUBERNETES_API}%") {
        let (crds, objects) = traefik::packaged(w);
        return Ok(Chart { objects, name: w.release.clone(), version: traefik::version(w), crds, ..Chart::default() });
    }
    let of = if w.repo.is_empty() { &w.chart } else { &w.repo };
    let host = of.trim_start_matches("https://").trim_start_matches("oci://").trim_end_matches('/');
    let in_repo: Vec<&Entry> = CATALOGUE.iter().filter(|e| e.repos.iter().any(|r| host.starts_with(r))).collect();
    if in_repo.is_empty() && !unheard(host) {
        return Ok(foreign(w));
    }
    if in_repo.is_empty() {
        return Err(format!(
            "Error: looks like \"{}\" is not a valid chart repository or cannot be reached: Get \"{}/index.yaml\": dial tcp: lookup {}: no such host",
            w.repo,
            w.repo,
            host.split('/').next().unwrap_or_default()
        ));
    }
    let Some(e) = in_repo.into_iter().find(|e| e.name == w.chart) else {
        return Err(format!(
            "Error: INSTALLATION FAILED: chart \"{}\" matching {} not found in {} index. (try 'helm repo update'): no chart name found",
            w.chart, w.version, w.release
        ));
    };
    let plain = |v: &str| v.trim_start_matches('v').to_owned();
    let version = if w.version.is_empty() {
        e.versions.first()
    } else {
        e.versions.iter().find(|v| plain(v) == plain(&w.version))
    };
    let Some(version) = version else {
        return Err(format!(
            "Error: INSTALLATION FAILED: chart \"{}\" matching {} not found in {} index. (try 'helm repo update'): no chart version found for {}-{}",
            w.chart, w.version, w.release, w.chart, w.version
        ));
    };
    let refused = (e.refuses)(version);
    let kube = refused.map_or_else(String::new, |m| format!("< 1.{m}.0-0"));
    if refused.is_some_and(|m| minor(&w.kubernetes) >= m) {
        return Err(format!(
            "Error: INSTALLATION FAILED: chart requires kubeVersion: {kube} which is incompatible with Kubernetes {}",
            w.kubernetes
        ));
    }
    let w = &Wanted { version: (*version).to_owned(), ..w.clone() };
    let (crds, objects) = (e.render)(w);
    Ok(Chart {
        name: e.name.to_owned(),
        version: (*version).to_owned(),
        crds,
        kube,
        objects,
        values: values::of(e.name),
        templates: values::templates(e.name),
        ..Chart::default()
    })
}

/// A chart that the catalogue does not have: its release is recorded, with the remark that nothing runs for it.
fn foreign(w: &Wanted) -> Chart {
    let name = w.chart.trim_end_matches(".tgz").rsplit('/').next().unwrap_or_default().to_owned();
    Chart {
        version: if w.version.is_empty() { "0.0.0".to_owned() } else { w.version.clone() },
        notes: format!("{} is {}", blind::chart(&name), blind::NOT_SIMULATED),
        name,
        ..Chart::default()
    }
}

/// Whether no DNS server knows a host: names that are reserved for documentation and tests (RFC 2606).
fn unheard(host: &str) -> bool {
    let name = host.split(['/', ':']).next().unwrap_or_default();
    let top = name.rsplit('.').next().unwrap_or_default();
    !name.contains('.') || matches!(top, "example" | "invalid" | "test" | "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(chart: &str, repo: &str, version: &str) -> Wanted {
        Wanted {
            release: "r".into(),
            namespace: "n".into(),
            chart: chart.into(),
            repo: repo.into(),
            version: version.into(),
            kubernetes: "v1.34.9+k3s1".into(),
            values: Value::Null,
        }
    }

    #[test]
    fn helm_refuses_what_is_not_there() {
        let rancher = "https://releases.rancher.com/server-charts/stable";
        assert!(render(&wanted("rancher", rancher, "2.13.6")).is_ok());
        assert!(render(&wanted("rancher", rancher, "9.9.9")).unwrap_err().contains("no chart version found"));
        assert!(render(&wanted("rancher", "https://nowhere.example", "1")).unwrap_err().contains("no such host"));
        let own = render(&wanted("nginx", "https://charts.bitnami.com/bitnami", "18.1.0")).unwrap();
        assert!(own.objects.is_empty() && own.notes.contains(blind::NOT_SIMULATED), "{}", own.notes);
        let oci = render(&wanted("oci://ghcr.io/traefik/helm/traefik", "", "37.0.0")).unwrap();
        assert_eq!((oci.name.as_str(), oci.version.as_str()), ("traefik", "37.0.0"));
        let mut old = wanted("rancher", rancher, "2.13.6");
        old.kubernetes = "v1.36.3+k3s1".into();
        assert!(render(&old).unwrap_err().contains("kubeVersion: < 1.35.0-0 which is incompatible with Kubernetes"));
        old.version = "2.15.1".into();
        assert!(render(&old).is_ok());
        // `--version 1.20.2` finds the chart that calls itself v1.20.2
        let certs = render(&wanted("cert-manager", "https://charts.jetstack.io", "1.20.2")).unwrap();
        assert_eq!(certs.version, "v1.20.2");
    }
}
