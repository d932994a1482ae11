//! Going back to an earlier revision: through the HelmChart where there is one, else as Helm itself does it.
use serde_json::{Value, json};

use super::body::{Stored, next_revision, secret_of};
use super::install::{HOME, newest_job};
use super::release::Release;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::k3s::config::to_yaml;
use crate::kubernetes::describe;
use crate::kubernetes::diff::is_ours;
use crate::kubernetes::rest::{Request, collection, item, query};
use crate::wire::release::encode;

impl Release {
    /// Brings the release back to an earlier revision; that becomes a new revision.
    ///
    /// # Errors
    /// `not_found` naming the revisions there are; `refused` for a release that Fleet owns.
    pub async fn rollback(&self, ctx: &Ctx, number: i64) -> OpResult<i64> {
        let op = Op::run("helm", "rollback", &self.name).class(Class::Adoptable).args(&number);
        ctx.run_op(op, |s| async move {
            let all = self.stored(s.ctx()).await?;
            let to = self.revision(s.ctx(), Some(number)).await?;
            let Some(newest) = all.last() else { return Err(OpError::not_found("there is no release").on(&self.name)) };
            // The revision itself, or one that a rollback to it has made.
            if newest.body["info"]["status"] == "deployed" && (newest.number == number || same_content(newest, &to)) {
                return Ok(newest.number);
            }
            self.cluster.refuse_fleet(s.ctx(), &self.name, &self.namespace).await?;
            let chart = self.cluster.find_object(s.ctx(), "helmchart", HOME, &self.name).await?;
            match chart {
                Some(chart) if !is_ours(&chart) => {
                    Err(OpError::refused("its HelmChart is not gpuhost's").on(&self.name))
                }
                Some(chart) => self.by_controller(&s, &chart, newest, &to).await,
                None => self.by_manifest(&s, newest, &to).await,
            }
        })
        .await
    }

    fn change(&self, from: &Stored, to: &Stored) -> Change {
        let words = |x: &Stored| {
            let m = &x.body["chart"]["metadata"];
            Value::from(format!(
                "revision {} ({} {})",
                x.number,
                m["name"].as_str().unwrap_or("?"),
                m["version"].as_str().unwrap_or("?")
            ))
        };
        Change::new(&self.name, "revision", Some(words(from)), Some(words(to)))
    }

    /// The controller installs the old chart version with the old values again.
    async fn by_controller(&self, s: &OpScope, chart: &Value, newest: &Stored, to: &Stored) -> OpResult<i64> {
        let job = newest_job(&self.cluster, s.ctx(), &self.name).await?;
        let config = &to.body["config"];
        let values =
            if config.as_object().is_some_and(|m| !m.is_empty()) { Value::from(to_yaml(config)) } else { Value::Null };
        let version = to.body["chart"]["metadata"]["version"].clone();
        let spec = json!({"version": version, "valuesContent": values, "valuesSecrets": null});
        let uid = chart["metadata"]["uid"].clone();
        let patch = json!({"metadata": {"uid": uid}, "spec": spec});
        let path = format!("/apis/helm.cattle.io/v1/namespaces/{HOME}/helmcharts/{}", self.name);
        s.act(format!("helmchart {}", self.name), vec![self.change(newest, to)], async {
            self.cluster.demand(s.ctx(), &self.name, &Request::merge(path, &patch)).await?;
            self.cluster.wait_new_revision(s, self, newest.number, &job).await
        })
        .await
    }

    /// As Helm does it: the old manifest is applied, what it lacks is deleted, a new revision is written.
    async fn by_manifest(&self, s: &OpScope, newest: &Stored, to: &Stored) -> OpResult<i64> {
        let ctx = s.ctx();
        let wanted = self.objects(ctx, to).await?;
        let now = self.objects(ctx, newest).await?;
        let id = |o: &Value| (describe(o), o["apiVersion"].as_str().unwrap_or_default().to_owned());
        let gone: Vec<&Value> = now.iter().filter(|o| !wanted.iter().any(|w| id(w) == id(o))).collect();
        let mut changes = vec![self.change(newest, to)];
        changes.extend(gone.iter().map(|o| Change::new(&self.name, describe(o), Some("present".into()), None)));
        let number = newest.number + 1;
        s.act(format!("release {}", self.name), changes, async {
            for mut o in wanted.clone() {
                self.dress(&mut o);
                let kind = self.cluster.kind_of(ctx, &o).await?;
                let q = query(&[("fieldManager", "helm"), ("force", "true")]);
                let meta = &o["metadata"];
                let at = item(
                    &kind,
                    meta["namespace"].as_str().unwrap_or_default(),
                    meta["name"].as_str().unwrap_or_default(),
                );
                self.cluster.demand(ctx, &describe(&o), &Request::apply(format!("{at}{q}"), &o)).await?;
            }
            for o in gone {
                // Helm keeps what says so
                if o["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" {
                    continue;
                }
                let kind = self.cluster.kind_of(ctx, o).await?;
                let meta = &o["metadata"];
                let at = item(
                    &kind,
                    meta["namespace"].as_str().unwrap_or_default(),
                    meta["name"].as_str().unwrap_or_default(),
                );
                let reply =
                    self.cluster.send(ctx, &Request::delete(format!("{at}?propagationPolicy=Background"))).await?;
                if !reply.ok() && reply.status != 404 {
                    return Err(reply.error(&describe(o)));
                }
            }
            self.write_revision(s, newest, to, number).await
        })
        .await?;
        Ok(number)
    }

    fn dress(&self, o: &mut Value) {
        if !o["metadata"]["annotations"].is_object() {
            o["metadata"]["annotations"] = json!({});
        }
        if !o["metadata"]["labels"].is_object() {
            o["metadata"]["labels"] = json!({});
        }
        o["metadata"]["annotations"]["meta.helm.sh/release-name"] = self.name.clone().into();
        o["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = self.namespace.clone().into();
        o["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
    }

    async fn write_revision(&self, s: &OpScope, newest: &Stored, to: &Stored, number: i64) -> OpResult<()> {
        let ctx = s.ctx();
        let ms = ctx.clock.now_ms().await;
        let pack = |body: &Value| {
            encode(body).map_err(|e| OpError::failed("the release cannot be packed").because(e.to_string()))
        };
        let fresh = next_revision(to, number, &rfc3339(ms));
        let secret = secret_of(&self.name, &self.namespace, number, &pack(&fresh)?, ms / 1000);
        let kind = self.cluster.kind(ctx, "secret").await?;
        self.cluster.demand(ctx, "release secret", &Request::post(collection(&kind, &self.namespace), &secret)).await?;
        let mut old = newest.body.clone();
        old["info"]["status"] = "superseded".into();
        let patch = json!({"metadata": {"labels": {"status": "superseded", "modifiedAt": (ms / 1000).to_string()}},
            "data": {"release": pack(&old)?}});
        let at = item(&kind, &self.namespace, newest.secret["metadata"]["name"].as_str().unwrap_or_default());
        self.cluster.demand(ctx, "release secret", &Request::merge(at, &patch)).await.map(drop)
    }
}

/// Whether two revisions say the same: chart, values and what was made of them.
fn same_content(a: &Stored, b: &Stored) -> bool {
    let version = |x: &Stored| {
        let m = &x.body["chart"]["metadata"];
        (m["name"].clone(), m["version"].clone())
    };
    let part = |k: &str| a.body[k] == b.body[k];
    version(a) == version(b) && part("config") && part("manifest")
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
fn rfc3339(ms: u64) -> String {
    let (days, rest) = ((ms / 86_400_000) as i64, ms % 86_400_000 / 1000);
    // civil from days (Howard Hinnant)
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let y = yoe + era * 400 + i64::from(m <= 2);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        let text = rfc3339(1_763_868_235_000);
        assert_eq!(text, "2025-11-23T03:23:55Z");
        assert_eq!(crate::kubernetes::epoch_seconds(&text), Some(1_763_868_235));
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
