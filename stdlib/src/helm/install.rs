//! Releases through the helm-controller that K3s brings: a HelmChart object, then its job, then its workloads.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::release::Release;
use super::values::{set_value, split};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Look, Op, OpScope};
use crate::core::options::{Field, refuse_unknown};
use crate::k3s::config::to_yaml;
use crate::kubernetes::diff::{MANAGED_BY, MANAGER};
use crate::kubernetes::{ApplyOptions, Cluster, EVERY, LogOptions, condition, is_true, pod_trouble, seen, waits_on};
use crate::options;
use crate::wire::blind;

/// Where HelmChart objects live.
pub(super) const HOME: &str = "kube-system";
/// Job attempts before a failure is final.
const ATTEMPTS: i64 = 4;

options! {
    /// A release.
    pub struct ReleaseOptions {
        /// Chart name, or `oci://…`, or the URL of a packed chart, or a local `.tgz` file.
        chart: String,
        /// Chart repository; empty for `oci://` and URLs.
        repo: String = String::new(),
        /// Chart version. Never left out: the same recipe gives the same release.
        version: String,
        /// Namespace of the release; made when absent.
        namespace: String = "default".to_owned(),
        /// Chart values; secrets among them are stored apart.
        values: rhai::Map = rhai::Map::new(),
        /// How long installing and becoming ready may take.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(15),
        /// Wait until the workloads are ready.
        wait: bool = true,
    }
}

options! {
    /// Who installs a release, and whose it may be.
    pub struct Driving {
        /// Who installs: `controller` (K3s' helm-controller) or `cli` (a `helm` program on this machine).
        driver: String = "controller".to_owned(),
        /// Take over a release that helm or another HelmChart made.
        take_over: bool = false,
    }
}

options! {
    /// Values that are given one by one.
    pub struct SetOptions {
        /// Single values by their path, over `values`, for example `#{ "image.tag": "1.2" }`.
        set: rhai::Map = rhai::Map::new(),
    }
}

/// What `ensure_release` takes: the release, and who installs it.
pub const RELEASE_FIELDS: &[Field] = &{
    let (a, b, c) = (ReleaseOptions::FIELDS, Driving::FIELDS, SetOptions::FIELDS);
    [a[0], a[1], a[2], a[3], a[4], c[0], a[5], a[6], b[0], b[1]]
};

impl Driving {
    /// The controller, nothing taken over.
    #[must_use]
    pub fn plain() -> Self {
        Driving { driver: "controller".to_owned(), take_over: false }
    }

    /// Reads both parts of a script's map.
    ///
    /// # Errors
    /// `invalid` naming the option at fault.
    pub fn split(map: &rhai::Map) -> OpResult<(ReleaseOptions, Driving)> {
        refuse_unknown(map, RELEASE_FIELDS)?;
        let part = |fields: &[Field]| -> rhai::Map {
            map.iter()
                .filter(|(k, _)| fields.iter().any(|f| f.name == k.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        let mut o = ReleaseOptions::read(&part(ReleaseOptions::FIELDS))?;
        for (path, value) in SetOptions::read(&part(SetOptions::FIELDS))?.set {
            set_value(&mut o.values, &path, value)?;
        }
        Ok((o, Driving::read(&part(Driving::FIELDS))?))
    }
}

/// What there was before a change: the old job must not be taken for the new one.
#[derive(Default)]
struct Was {
    revision: i64,
    job: String,
    until: u64,
    heard: Mutex<Vec<String>>,
}

impl Was {
    /// What a job says; what it said last once its pods are gone, as they are when it has failed for good.
    fn heard(&self, said: Vec<String>) -> Vec<String> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_empty() {
            *heard = said;
        }
        heard.clone()
    }
}

/// The HelmChart object, and the Secret of its secret values.
///
/// # Errors
/// `invalid` for values that have no JSON form.
pub fn chart_objects(name: &str, o: &ReleaseOptions, archive: Option<&[u8]>) -> OpResult<Vec<Value>> {
    let (plain, secret) = split(&o.values)?;
    let mut spec = json!({
        "chart": o.chart, "version": o.version, "targetNamespace": o.namespace, "createNamespace": true,
        "failurePolicy": "abort", "backOffLimit": ATTEMPTS,
        "timeout": format!("{}s", o.timeout.0.as_secs()),
    });
    if !o.repo.is_empty() {
        spec["repo"] = o.repo.clone().into();
    }
    if let Some(bytes) = archive {
        spec["chart"] = Value::Null;
        spec["version"] = Value::Null;
        spec["chartContent"] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
        spec.as_object_mut().into_iter().for_each(|m| m.retain(|_, v| !v.is_null()));
    }
    if plain.as_object().is_some_and(|m| !m.is_empty()) {
        spec["valuesContent"] = to_yaml(&plain).into();
    }
    let mut out = Vec::new();
    if let Some(secret) = secret {
        let holder = format!("gpuhost-values-{name}");
        let text = base64::engine::general_purpose::STANDARD.encode(to_yaml(&secret));
        out.push(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": holder, "namespace": HOME}, "data": {"values.yaml": text}}));
        spec["valuesSecrets"] = json!([{"name": holder, "keys": ["values.yaml"]}]);
    }
    out.push(json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
        "metadata": {"name": name, "namespace": HOME, "labels": {MANAGED_BY: MANAGER}}, "spec": spec}));
    Ok(out)
}

/// Whether a workload is ready; what it lacks otherwise.
#[must_use]
pub fn workload_trouble(w: &Value) -> Option<String> {
    let (spec, status) = (&w["spec"], &w["status"]);
    let n = |v: &Value| v.as_i64().unwrap_or(0);
    let (kind, name) = (w["kind"].as_str().unwrap_or("?"), w["metadata"]["name"].as_str().unwrap_or("?"));
    let stale = n(&status["observedGeneration"]) < n(&w["metadata"]["generation"]);
    let (want, ready) = match kind {
        "DaemonSet" => (n(&status["desiredNumberScheduled"]), n(&status["numberReady"])),
        "StatefulSet" => (spec["replicas"].as_i64().unwrap_or(1), n(&status["readyReplicas"])),
        _ => (spec["replicas"].as_i64().unwrap_or(1), n(&status["availableReplicas"])),
    };
    if stale {
        return Some(format!("{kind} {name} is not looked at yet"));
    }
    (ready < want).then(|| format!("{kind} {name}: {ready} of {want} ready"))
}

impl Cluster {
    /// Installs or upgrades a release; 0 changes when it is as wanted.
    ///
    /// # Errors
    /// `refused` for a release of another owner; `failed` with Helm's own words; `timeout` with what is not ready.
    pub async fn ensure_release(&self, ctx: &Ctx, name: &str, o: &ReleaseOptions, by: &Driving) -> OpResult<Release> {
        let op = Op::write("helm", "ensure_release", name).class(Class::Adoptable).args(&(&o.chart, &o.version));
        ctx.run_op(op, |s| async move { self.drive_release(&s, name, o, by).await }).await
    }

    /// As [`Cluster::ensure_release`], inside another op.
    ///
    /// # Errors
    /// Like [`Cluster::ensure_release`].
    pub(crate) async fn ensure_release_in(&self, s: &OpScope, name: &str, o: &ReleaseOptions) -> OpResult<Release> {
        self.drive_release(s, name, o, &Driving::plain()).await
    }

    async fn drive_release(&self, s: &OpScope, name: &str, o: &ReleaseOptions, by: &Driving) -> OpResult<Release> {
        let release = Release { cluster: self.clone(), name: name.to_owned(), namespace: o.namespace.clone() };
        let before = self.release_revisions(s.ctx(), &o.namespace, name).await?;
        let live = self.find_object(s.ctx(), "helmchart", HOME, name).await?;
        self.check_owner(s.ctx(), name, o, by, live.as_ref(), &before).await?;
        let archive = super::known::local(s.ctx(), &o.chart)?;
        if !by.take_over {
            super::owner::same_chart(name, o, archive.as_deref(), &before)?;
        }
        let known = super::known::Known::of(&release, s.ctx(), o, archive.as_deref()).await?;
        let apply = ApplyOptions { namespace: HOME.to_owned(), take_over: by.take_over };
        let mut planned = Vec::new();
        if by.driver == "controller" {
            planned = self.plan_objects(s.ctx(), chart_objects(name, o, archive.as_deref())?, &apply).await?;
        }
        planned.iter_mut().for_each(|p| p.changes = value_changes(std::mem::take(&mut p.changes)));
        let newest = before.last().map_or(0, |r| r.number);
        let deployed = before.last().is_some_and(|r| r.status == "deployed" && wants(o, &r.version));
        let same = planned.is_empty()
            && (by.driver == "controller" || super::cli::changes(self.name(), name, o, &before)?.1.is_empty());
        let excluded = known.check(self, s.ctx(), name, o, same && deployed).await?;
        match by.driver.as_str() {
            "controller" => {}
            "cli" => {
                super::cli::ensure(self, s, name, o, live.as_ref(), &before).await?;
                if o.wait {
                    self.wait_workloads(s, name, &o.namespace, o.timeout.0).await?;
                }
                return Ok(release);
            }
            other => {
                return Err(OpError::invalid(format!("option `driver`: there is no driver `{other}`"))
                    .hint("`controller` or `cli`"));
            }
        }
        let mut was = Was::default();
        if !planned.is_empty() {
            was = Was { revision: newest, job: newest_job(self, s.ctx(), name).await?, until: 0, ..Was::default() };
            self.write_planned(s, planned).await?;
            // the controller replaces its job for a changed chart, but not at once
            was.until = s.ctx().clock.now_ms().await + 60_000;
        } else if !deployed {
            self.try_again(s, name, before.last()).await?;
        } else if !excluded {
            let lacking = match release.newest(s.ctx()).await? {
                Some(stored) => release.lacking(s.ctx(), &stored).await?,
                None => Vec::new(),
            };
            if !lacking.is_empty() {
                was = self.install_again(s, name, newest, &lacking).await?;
            }
        }
        // a new K3s runs every job again, and Helm refuses this one for good: the release stands all the same
        if !excluded {
            self.wait_installed(s, name, o, &was).await?;
        }
        known.look_after(&release, s.ctx(), o).await?;
        if o.wait {
            self.wait_workloads(s, name, &o.namespace, o.timeout.0).await?;
        }
        Ok(release)
    }

    /// Waits until a revision newer than `old` is deployed by a job other than `job`; gives its number.
    pub(super) async fn wait_new_revision(&self, s: &OpScope, r: &Release, old: i64, job: &str) -> OpResult<i64> {
        let what = format!("a new revision of {}", r.name);
        let target = crate::kubernetes::Target::all("job", HOME);
        self.wait_watching(s, &what, target, Duration::from_secs(900), || async {
            let revisions = self.release_revisions(s.ctx(), &r.namespace, &r.name).await?;
            if let Some(n) = revisions.last().filter(|n| n.number > old && n.status == "deployed") {
                return Ok(Look::Ready(n.number));
            }
            let name = format!("helm-install-{}", r.name);
            let live = self.find_object(s.ctx(), "job", HOME, &name).await?;
            let fresh = live.filter(|j| j["metadata"]["uid"].as_str() != Some(job));
            if fresh.is_some_and(|j| is_true(&j, "Failed")) {
                let mut e = OpError::failed(format!("Helm could not bring `{}` back", r.name)).on(&r.name);
                e.causes = self.job_words(s.ctx(), &name).await;
                return Err(e.hint(format!("all of it: `kubectl -n {HOME} logs job/{name}`")));
            }
            Ok(Look::Pending("its job runs".to_owned()))
        })
        .await
    }

    /// An unchanged chart whose job failed for good is tried again, and so is one whose release somebody took away after
    /// its job was done: the controller makes a new job.
    async fn try_again(&self, s: &OpScope, name: &str, newest: Option<&super::Revision>) -> OpResult<()> {
        let job = format!("helm-install-{name}");
        let Some(found) = self.find_object(s.ctx(), "job", HOME, &job).await? else { return Ok(()) };
        let gone = is_true(&found, "Complete") && newest.is_none_or(|r| r.status.starts_with("uninstall"));
        if !is_true(&found, "Failed") && !gone {
            return Ok(());
        }
        let was = if gone { "done, and its release is gone" } else { "failed" };
        let change = Change::new(self.name(), format!("job {job}"), Some(was.into()), Some("tried again".into()));
        s.act(format!("job {job}"), vec![change], self.delete_now(s.ctx(), "job", HOME, &job)).await
    }

    /// A release whose objects somebody deleted is installed again: Helm makes what is not there. The controller makes a new
    /// job for one that is gone.
    async fn install_again(&self, s: &OpScope, name: &str, revision: i64, lacking: &[String]) -> OpResult<Was> {
        let job = format!("helm-install-{name}");
        let was = Was { revision, job: newest_job(self, s.ctx(), name).await?, ..Was::default() };
        let change =
            |o: &String| Change::new(self.name(), format!("release {name} {o}"), None, Some("made again".into()));
        let changes = lacking.iter().map(change).collect();
        s.act(format!("job {job}"), changes, self.delete_now(s.ctx(), "job", HOME, &job)).await?;
        Ok(Was { until: s.ctx().clock.now_ms().await + 60_000, ..was })
    }

    async fn wait_installed(&self, s: &OpScope, name: &str, o: &ReleaseOptions, was: &Was) -> OpResult<()> {
        let job = format!("helm-install-{name}");
        s.wait_for(&format!("installation of {name}"), EVERY, o.timeout.0, || async {
            match self.look_installed(s.ctx(), name, &job, o, was).await {
                Err(e) if waits_on(&e) && e.hint.is_none() => Ok(Look::Pending(seen(&e))),
                other => other,
            }
        })
        .await
        .map_err(|e| e.on(name))
    }

    async fn look_installed(
        &self,
        ctx: &Ctx,
        name: &str,
        job: &str,
        o: &ReleaseOptions,
        was: &Was,
    ) -> OpResult<Look<()>> {
        let revisions = self.release_revisions(ctx, &o.namespace, name).await?;
        let newest = revisions.last();
        if let Some(r) = newest.filter(|r| ctx.lab && r.notes.contains(blind::NOT_SIMULATED)) {
            ctx.blind(blind::chart(&r.chart));
        }
        let done = newest.is_some_and(|r| r.status == "deployed" && wants(o, &r.version));
        let Some(live) = self.find_object(ctx, "job", HOME, job).await? else {
            if done && newest.is_some_and(|r| was.until == 0 || r.number > was.revision) {
                return Ok(Look::Ready(()));
            }
            return self.look_controller(ctx, name).await;
        };
        let same_job = !was.job.is_empty() && live["metadata"]["uid"].as_str() == Some(&was.job);
        let same = same_job && newest.is_none_or(|r| r.number <= was.revision);
        if same && ctx.clock.now_ms().await < was.until {
            return Ok(Look::Pending("waits for the helm-controller to take the change".to_owned()));
        }
        if is_true(&live, "Complete") && done {
            return Ok(Look::Ready(()));
        }
        let (said, attempts) = self.job_says(ctx, job, live["metadata"]["uid"].as_str()).await;
        if let Some(e) = super::missing::chart(name, o, &said, attempts) {
            return Err(e);
        }
        let said = was.heard(said);
        if is_true(&live, "Failed") {
            let mut e = OpError::failed(format!("Helm could not install `{name}` {}", o.version)).on(name);
            e.causes = said;
            if let Some(line) = e.causes.iter().find(|l| l.contains("requires kubeVersion")) {
                let why = line.clone();
                e = OpError::invalid(format!("chart `{}` {} excludes this Kubernetes", o.chart, o.version))
                    .on(name)
                    .because(why);
                let version = self.read_json(ctx, "/version").await?;
                let git = version["gitVersion"].as_str().unwrap_or_default();
                return Err(e.hint(super::known::another(&o.chart, git)));
            }
            return Err(e.hint(format!("all of it: `kubectl -n {HOME} logs job/{job}`")));
        }
        let failed = live["status"]["failed"].as_i64().unwrap_or(0);
        let words = said.last().cloned().unwrap_or_else(|| "its job runs".to_owned());
        Ok(Look::Pending(if failed > 0 { format!("failing, attempt {}: {words}", failed + 1) } else { words }))
    }

    /// No job yet: what the controller says of the chart.
    async fn look_controller(&self, ctx: &Ctx, name: &str) -> OpResult<Look<()>> {
        let chart = self.get_object(ctx, "helmchart", HOME, name).await?;
        match condition(&chart, "Failed") {
            Some((status, why)) if status == "True" => {
                Err(OpError::failed(format!("the helm-controller refuses `{name}`"))
                    .because(why)
                    .hint("correct the chart, its version or its values"))
            }
            _ => Ok(Look::Pending("waits for the helm-controller".to_owned())),
        }
    }

    /// Last words of a job's newest pod, or why it does not run.
    async fn job_words(&self, ctx: &Ctx, job: &str) -> Vec<String> {
        self.job_says(ctx, job, None).await.0
    }

    /// The same for a job of this uid only, not of the one it took the name of; and how often its container has ended.
    pub(super) async fn job_says(&self, ctx: &Ctx, job: &str, uid: Option<&str>) -> (Vec<String>, i64) {
        let nothing = (Vec::new(), 0);
        let Ok(mut pods) = self.list_labelled(ctx, "pod", HOME, ("job-name", job)).await else { return nothing };
        pods.retain(|p| uid.is_none() || p["metadata"]["ownerReferences"][0]["uid"].as_str() == uid);
        pods.sort_by_key(|p| p["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
        let Some(pod) = pods.last() else { return nothing };
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0);
        let attempts = restarts + pods.len() as i64 - 1;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let o = LogOptions { namespace: HOME.to_owned(), container: String::new(), tail: 20 };
        let log = self.pod_log(ctx, name, &o).await.unwrap_or_default();
        let lines = crate::k3s::journal::last_lines(&log, 3);
        let said = if lines.is_empty() { pod_trouble(pod).into_iter().collect() } else { lines };
        (said, attempts)
    }

    /// Waits until the release's workloads are ready.
    async fn wait_workloads(&self, s: &OpScope, name: &str, namespace: &str, limit: Duration) -> OpResult<()> {
        let what = format!("workloads of {name}");
        s.wait_for(&what, EVERY, limit, || async {
            match self.release_trouble(s.ctx(), name, namespace).await {
                Ok(list) if list.is_empty() => Ok(Look::Ready(())),
                Ok(list) => Ok(Look::Pending(list.join("; "))),
                Err(e) if waits_on(&e) => Ok(Look::Pending(seen(&e))),
                Err(e) => Err(e),
            }
        })
        .await
        .map_err(|e| e.on(name))
    }

    /// What is not ready of a release, with the reason of the first broken pod.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn release_trouble(&self, ctx: &Ctx, name: &str, namespace: &str) -> OpResult<Vec<String>> {
        let mut out = Vec::new();
        for kind in ["deploy", "daemonset", "statefulset"] {
            for w in self.list_in(ctx, kind, namespace).await? {
                if w["metadata"]["annotations"]["meta.helm.sh/release-name"] == name {
                    out.extend(workload_trouble(&w));
                }
            }
        }
        if out.is_empty() {
            return Ok(out);
        }
        let pods = self.list_in(ctx, "pod", namespace).await?;
        let broken = pods.iter().find_map(|p| Some((p["metadata"]["name"].as_str()?, pod_trouble(p)?)));
        if let Some((pod, why)) = broken {
            out.push(format!("pod {pod}: {why}"));
        }
        Ok(out)
    }
}

/// The job that installed last, by its uid; empty when there is none.
pub(super) async fn newest_job(cluster: &Cluster, ctx: &Ctx, name: &str) -> OpResult<String> {
    let job = cluster.find_object(ctx, "job", HOME, &format!("helm-install-{name}")).await?;
    Ok(job.and_then(|j| j["metadata"]["uid"].as_str().map(str::to_owned)).unwrap_or_default())
}

/// Whether a revision's chart version is the wanted one; a local chart has its own.
fn wants(o: &ReleaseOptions, version: &str) -> bool {
    super::release::same_version(version, &o.version) || super::known::is_local(&o.chart)
}

/// A changed `valuesContent` as the values that differ.
fn value_changes(changes: Vec<Change>) -> Vec<Change> {
    let mut out = Vec::new();
    for c in changes {
        let Some(subject) = c.what.strip_suffix(" spec.valuesContent") else {
            out.push(c);
            continue;
        };
        let parse = |v: &Option<Value>| -> Value {
            let text = v.as_ref().and_then(Value::as_str).unwrap_or_default();
            serde_saphyr::from_str(text).unwrap_or(Value::Null)
        };
        let differ = super::body::value_differences(&parse(&c.before), &parse(&c.after));
        if differ.is_empty() {
            // the same values, written otherwise
            out.push(c);
            continue;
        }
        out.extend(
            differ
                .into_iter()
                .map(|(path, before, after)| Change::new(&c.target, format!("{subject} values.{path}"), before, after)),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_abort_and_pin() {
        let mut m = rhai::Map::new();
        m.insert("chart".into(), "cert-manager".into());
        m.insert("repo".into(), "https://charts.jetstack.io".into());
        m.insert("version".into(), "1.20.2".into());
        m.insert("namespace".into(), "cert-manager".into());
        let o = ReleaseOptions::read(&m).unwrap();
        let objects = chart_objects("cert-manager", &o, None).unwrap();
        assert_eq!((objects.len(), objects[0]["spec"]["failurePolicy"].as_str()), (1, Some("abort")));
        assert_eq!(objects[0]["spec"]["valuesContent"], Value::Null);
        m.remove("version");
        assert_eq!(ReleaseOptions::read(&m).unwrap_err().message, "option `version` is missing");
    }

    #[test]
    fn the_plan_names_values_not_texts() {
        let c = Change::new(
            "c",
            "HelmChart a spec.valuesContent",
            Some("a: 1\nb: 2\n".into()),
            Some("a: 1\nb: 3\n".into()),
        );
        let out = value_changes(vec![c]);
        assert_eq!(
            (out.len(), out[0].what.as_str(), out[0].after.clone()),
            (1, "HelmChart a values.b", Some(3.into()))
        );
    }

    #[test]
    fn workloads_say_what_they_lack() {
        let d = json!({"kind":"Deployment","metadata":{"name":"a","generation":1},"spec":{"replicas":2},"status":{"observedGeneration":1,"availableReplicas":1}});
        assert_eq!(workload_trouble(&d).unwrap(), "Deployment a: 1 of 2 ready");
        let ds = json!({"kind":"DaemonSet","metadata":{"name":"a"},"spec":{},"status":{"desiredNumberScheduled":0,"numberReady":0}});
        assert_eq!(workload_trouble(&ds), None);
    }
}
