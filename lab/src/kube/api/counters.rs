//! `/metrics`: the counters of the API server that dashboards begin with. Grade: docs (a small part of the real page).
use http::Response;

use super::{Body, Call, text};

/// The page, in the text form of Prometheus.
#[must_use]
pub fn page(call: &Call<'_>) -> Response<Body> {
    let version = super::health::version(call);
    let word = |k: &str| version[k].as_str().unwrap_or_default().to_owned();
    let mut out = String::from(
        "# HELP kubernetes_build_info [BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.\n# TYPE kubernetes_build_info gauge\n",
    );
    out += &format!(
        "kubernetes_build_info{{build_date=\"{}\",compiler=\"gc\",git_commit=\"{}\",git_tree_state=\"clean\",git_version=\"{}\",go_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"linux/amd64\"}} 1\n",
        word("buildDate"),
        word("gitCommit"),
        word("gitVersion"),
        word("goVersion"),
        word("major"),
        word("minor"),
    );
    out += "# HELP apiserver_storage_objects [STABLE] Number of stored objects at the time of last check split by kind.\n# TYPE apiserver_storage_objects gauge\n";
    let counts: Vec<(String, usize)> = call.lab.with(|w| {
        let Some(c) = w.clusters.get(call.cluster) else { return Vec::new() };
        c.store.resources().map(|r| (r.to_owned(), c.store.all(r, "").count())).collect()
    });
    for (resource, n) in counts {
        out += &format!("apiserver_storage_objects{{resource=\"{resource}\"}} {n}\n");
    }
    text(200, "text/plain; version=0.0.4; charset=utf-8", out)
}
