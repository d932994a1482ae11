//! What the container of a helm job writes: the trace of klipper-helm's script with helm's own words in it. Grade: source
//! (klipper-helm 0.9 to 0.13).
use serde_json::Value;

use super::super::charts::Chart;
use super::super::cx::Cx;
use super::super::k3s::release::parts_of;
use super::super::text::{arr, s};
use super::release;

/// What the script finds.
#[derive(Debug, Default)]
pub struct Now {
    release: String,
    namespace: String,
    chart: String,
    /// The chart came with its HelmChart.
    packed: bool,
    repo: String,
    args: Vec<String>,
    values: Vec<String>,
    /// Newest deployed revision, with the chart it is of.
    deployed: Option<(u64, String)>,
    when: String,
    helm_controller: (u32, u32),
}

impl Now {
    /// Of a job's pod that works for a release.
    #[must_use]
    pub fn of(cx: &Cx, pod: &Value, namespace: &str, release: &str) -> Self {
        let c = &pod["spec"]["containers"][0];
        let env = |name: &str| {
            let found = arr(c, "/env").iter().find(|e| e["name"] == name);
            found.map(|e| s(e, "/value").to_owned()).unwrap_or_default()
        };
        let values = arr(pod, "/spec/volumes").iter().filter(|v| v["name"] == "values");
        let items = values.flat_map(|v| arr(v, "/projected/sources")).flat_map(|p| arr(p, "/secret/items"));
        let mut files: Vec<String> = items.map(|i| s(i, "/path").to_owned()).filter(|p| p.ends_with(".yaml")).collect();
        files.sort();
        let number = release::newest(cx, namespace, release);
        let deployed =
            release::current(cx, namespace, release).map(|_| (number, format!("{release}-{}", env("VERSION"))));
        let api = super::super::k3s::packaged::service_address(cx, 1);
        let packed = env("CHART").is_empty();
        let chart = env("CHART").replace("%{KUBERNETES_API}%", &format!("{api}:443"));
        Now {
            release: release.to_owned(),
            namespace: namespace.to_owned(),
            chart: if packed { format!("/tmp/{release}.tgz") } else { chart },
            packed,
            repo: env("REPO"),
            args: arr(c, "/args").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            values: files,
            deployed,
            when: crate::guest::journal::ansic(cx.now() / 1000),
            helm_controller: parts_of(&cx.c.version).helm_controller,
        }
    }

    fn call(&self, verb: &str) -> String {
        let mut words = vec!["+ helm".to_owned(), verb.to_owned()];
        words.extend(self.args.iter().skip(1).cloned());
        words.extend([self.release.clone(), self.chart.clone()]);
        words.extend(self.values.iter().map(|f| format!("--values /config/{f}")));
        words.join(" ")
    }

    /// How the chart is got.
    fn fetched(&self) -> Vec<String> {
        let mut out = vec!["+ grep -q -e 'https\\?://'".to_owned()];
        let mut say = |lines: &[&str]| out.extend(lines.iter().map(|l| (*l).to_owned()));
        if self.chart.starts_with("http") {
            say(&[
                "+ echo 'chart path is a url, skipping repo update'",
                "chart path is a url, skipping repo update",
                "+ helm repo remove stable",
                "Error: no repositories configured",
                "+ true",
                "+ return",
            ]);
            return out;
        }
        say(&[&format!("+ [[ {} == stable/* ]]", self.chart)]);
        if self.repo.is_empty() {
            say(&["+ [[ -n '' ]]"]);
            return out;
        }
        let (name, repo) = (&self.release, &self.repo);
        say(&[
            &format!("+ [[ -n {repo} ]]"),
            "+ [[ -f /auth/username ]]",
            "+ [[ -f /auth/tls.crt ]]",
            &format!("+ helm repo add {name} {repo}"),
        ]);
        out
    }

    fn updated(&self) -> Vec<String> {
        if self.repo.is_empty() || self.chart.starts_with("http") {
            return Vec::new();
        }
        vec![
            format!("\"{}\" has been added to your repositories", self.release),
            "+ helm repo update".to_owned(),
            "Hang tight while we grab the latest from your chart repositories...".to_owned(),
            format!("...Successfully got an update from the \"{}\" chart repository", self.release),
            "Update Complete. ⎈Happy Helming!⎈".to_owned(),
        ]
    }

    /// How the script learns what is installed.
    fn looked(&self) -> Vec<String> {
        let (ns, name) = (&self.namespace, &self.release);
        let (revision, chart) =
            self.deployed.clone().map_or((String::new(), "null".to_owned()), |(n, c)| (n.to_string(), c));
        let status = if self.deployed.is_some() { "deployed" } else { "null" };
        if self.helm_controller >= (17, 6) {
            let mut out = vec![format!("++ helm status --namespace {ns} {name} --output json")];
            out.push("++ jq -r '[.info.status,.version,.apply_method]|@tsv'".to_owned());
            if self.deployed.is_none() {
                out.push("Error: release: not found".to_owned());
            }
            out.push("+ read -r STATUS REVISION APPLY_METHOD _".to_owned());
            return out;
        }
        let (all, jq, line, read) = match self.helm_controller >= (17, 0) {
            true => ("", ",\\(.[0].revision)", format!("{chart},{status},{}", or_null(&revision)), "STATUS REVISION _"),
            false => ("--all ", "", format!("{chart},{status}"), "STATUS _"),
        };
        vec![
            format!("++ helm ls {all}-f '^{name}$' --namespace {ns} --output json"),
            format!("++ jq -r '\"\\(.[0].chart),\\(.[0].status){jq}\"'"),
            "++ tr '[:upper:]' '[:lower:]'".to_owned(),
            format!("+ LINE={line}"),
            "+ IFS=,".to_owned(),
            format!("+ read -r INSTALLED_VERSION {read}"),
        ]
    }

    fn deployed_words(&self, revision: u64) -> Vec<String> {
        vec![
            format!("NAME: {}", self.release),
            format!("LAST DEPLOYED: {}", self.when),
            format!("NAMESPACE: {}", self.namespace),
            "STATUS: deployed".to_owned(),
            format!("REVISION: {revision}"),
            "TEST SUITE: None".to_owned(),
        ]
    }
}

fn or_null(text: &str) -> &str {
    if text.is_empty() { "null" } else { text }
}

/// The whole log. `made`: the chart that goes in, nothing when the release is uninstalled, or helm's error.
#[must_use]
pub fn log(now: &Now, made: Result<Option<&Chart>, &str>) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut say = |lines: &[&str]| out.extend(lines.iter().map(|l| (*l).to_owned()));
    let verb = now.args.first().map_or("install", String::as_str);
    say(&[
        "+ [[ '' == \\v\\2 ]]",
        "+ shopt -s nullglob",
        "+ [[ -f /config/ca-file.pem ]]",
        "+ [[ -f /tmp/ca-file.pem ]]",
    ]);
    say(&[
        "+ [[ false == \\t\\r\\u\\e ]]",
        "+ [[ false == \\t\\r\\u\\e ]]",
        "+ [[ -n '' ]]",
        "+ helm_content_decode",
        "+ set -e",
    ]);
    let name = &now.release;
    say(&[&format!("+ ENC_CHART_PATH=/chart/{name}.tgz.base64"), &format!("+ CHART_PATH=/tmp/{name}.tgz")]);
    say(&[&format!("+ [[ ! -f /chart/{name}.tgz.base64 ]]")]);
    match now.packed && verb != "delete" {
        true => {
            say(&[&format!("+ base64 -d /chart/{name}.tgz.base64"), &format!("+ CHART=/tmp/{name}.tgz"), "+ set +e"])
        }
        false => say(&["+ return"]),
    }
    say(&[&format!("+ [[ {verb} != \\d\\e\\l\\e\\t\\e ]]")]);
    if verb != "delete" {
        say(&["+ helm_repo_init"]);
        out.extend(now.fetched());
        // an unknown repository ends it here
        if let Err(text) = made
            && text.contains("is not a valid chart repository")
        {
            out.push(text.to_owned());
            return out.join("\n") + "\n";
        }
        out.extend(now.updated());
    }
    out.push(format!("+ helm_update {}", now.args.join(" ")));
    out.extend(now.looked());
    out.push(format!("+ [[ {verb} = \\d\\e\\l\\e\\t\\e ]]"));
    match (made, &now.deployed) {
        (Ok(None), _) => {
            out.push("+ echo 'Uninstalling helm chart'".to_owned());
            out.push(format!("+ helm uninstall {name} --namespace {} --wait", now.namespace));
            out.push(format!("release \"{name}\" uninstalled"));
        }
        (_, Some((revision, _))) => {
            out.push(format!("Already installed {name}"));
            out.push(format!("+ helm mapkubeapis {name} --namespace {}", now.namespace));
            out.extend([
                "+ echo 'Upgrading helm chart'".to_owned(),
                format!("Upgrading {name}"),
                "+ shift 1".to_owned(),
            ]);
            out.push(now.call("upgrade"));
            if made.is_ok() {
                out.push(format!("Release \"{name}\" has been upgraded. Happy Helming!"));
                out.extend(now.deployed_words(revision + 1));
            }
        }
        (_, None) => {
            out.push("+ echo 'Installing helm chart'".to_owned());
            out.push(now.call("install"));
            if made.is_ok() {
                out.extend(now.deployed_words(1));
            }
        }
    }
    match made {
        Err(text) => out.push(text.to_owned()),
        Ok(_) => out.push("+ exit".to_owned()),
    }
    out.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_an_installation() {
        let now = Now {
            release: "cm".into(),
            namespace: "certs".into(),
            chart: "cm/cert-manager".into(),
            repo: "https://r".into(),
            args: ["install", "--namespace", "certs"].map(str::to_owned).to_vec(),
            values: vec!["values-0-000-HelmChart-ValuesContent.yaml".into()],
            helm_controller: (17, 1),
            ..Now::default()
        };
        let text = log(&now, Err("Error: INSTALLATION FAILED: no"));
        let call = "+ helm install --namespace certs cm cm/cert-manager --values /config/values-0-000-HelmChart-ValuesContent.yaml";
        assert!(text.contains(call), "{text}");
        assert!(text.contains("+ helm repo add cm https://r") && text.ends_with("FAILED: no\n"), "{text}");
    }
}
