//! What release Secrets hold beside the revision: manifest, chart, values. Differences and drift, no helm binary.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::release::{Release, Revision, body_of, number_of, revision_of, unreadable};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::Change;
use crate::kubernetes::rest::{Request, collection, item, query};
use crate::kubernetes::{describe, diff, parse_yaml};

/// One revision's Secret and the release inside it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Revision number.
    pub number: i64,
    /// The Secret.
    pub secret: Value,
    /// The release inside: chart, config, manifest, info.
    pub body: Value,
}

impl Stored {
    /// The revision, without decoding its Secret again.
    pub(super) fn revision(&self) -> Revision {
        revision_of(self.number, &self.secret, Some(&self.body))
    }
}

/// Differences between two trees of values, as `(path, before, after)`.
#[must_use]
pub fn value_differences(before: &Value, after: &Value) -> Vec<(String, Option<Value>, Option<Value>)> {
    let mut out = Vec::new();
    walk("", before, after, &mut out);
    out
}

fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<(String, Option<Value>, Option<Value>)>) {
    let below = |k: &str| if path.is_empty() { k.to_owned() } else { format!("{path}.{k}") };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
            for k in keys {
                walk(&below(k), x.get(k).unwrap_or(&Value::Null), y.get(k).unwrap_or(&Value::Null), out);
            }
        }
        (Value::Null, Value::Object(y)) if !y.is_empty() => {
            y.iter().for_each(|(k, v)| walk(&below(k), &Value::Null, v, out))
        }
        (Value::Object(x), Value::Null) if !x.is_empty() => {
            x.iter().for_each(|(k, v)| walk(&below(k), v, &Value::Null, out))
        }
        _ if a == b => {}
        _ => {
            let some = |v: &Value| (!v.is_null()).then(|| v.clone());
            out.push((path.to_owned(), some(a), some(b)));
        }
    }
}

impl Release {
    /// All revisions with what they hold, oldest first.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn stored(&self, ctx: &Ctx) -> OpResult<Vec<Stored>> {
        let mut out = Vec::new();
        for secret in self.cluster.release_secrets(ctx, &self.namespace, &self.name).await? {
            if let (Some(number), Some(body)) = (number_of(&secret), body_of(&secret)) {
                out.push(Stored { number, secret, body });
            }
        }
        out.sort_by_key(|s| s.number);
        Ok(out)
    }

    /// The newest revision, the only one that is decoded; `None` when there is no release.
    ///
    /// # Errors
    /// `failed` when it cannot be decoded; `unreachable`, `denied`.
    pub(super) async fn newest(&self, ctx: &Ctx) -> OpResult<Option<Stored>> {
        let secrets = self.cluster.release_secrets(ctx, &self.namespace, &self.name).await?;
        let numbered = secrets.into_iter().filter_map(|s| Some((number_of(&s)?, s)));
        let Some((number, secret)) = numbered.max_by_key(|(n, _)| *n) else { return Ok(None) };
        let body = body_of(&secret).ok_or_else(|| unreadable(&self.namespace, &self.name, number))?;
        Ok(Some(Stored { number, secret, body }))
    }

    /// One revision: the given one, or the newest.
    ///
    /// # Errors
    /// `not_found` naming the revisions there are.
    pub async fn revision(&self, ctx: &Ctx, number: Option<i64>) -> OpResult<Stored> {
        let mut all = self.stored(ctx).await?;
        let names: Vec<String> = all.iter().map(|s| s.number.to_string()).collect();
        let at = match number {
            Some(n) => all.iter().position(|s| s.number == n),
            None => all.len().checked_sub(1),
        };
        match at {
            Some(i) => Ok(all.swap_remove(i)),
            None if all.is_empty() => {
                Err(OpError::not_found(format!("there is no release `{}`", self.name)).on(&self.name))
            }
            None => Err(OpError::not_found(format!("`{}` has no revision {}", self.name, number.unwrap_or(0)))
                .on(&self.name)
                .hint(format!("revisions: {}", names.join(", ")))),
        }
    }

    /// Objects of a revision's manifest, in the release's namespace where they name none.
    ///
    /// # Errors
    /// `invalid` when the manifest cannot be read.
    pub async fn objects(&self, ctx: &Ctx, stored: &Stored) -> OpResult<Vec<Value>> {
        let mut objects = parse_yaml(stored.body["manifest"].as_str().unwrap_or_default())?;
        for o in &mut objects {
            let namespaced = self.cluster.kind_of(ctx, o).await.map(|k| k.namespaced).unwrap_or(false);
            if namespaced && o["metadata"]["namespace"].is_null() {
                o["metadata"]["namespace"] = self.namespace.clone().into();
            }
        }
        Ok(objects)
    }

    /// Where the live objects differ from the newest revision's manifest: changed fields, absent objects.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn drift(&self, ctx: &Ctx) -> OpResult<Vec<Change>> {
        let newest = self.revision(ctx, None).await?;
        let mut out = Vec::new();
        for mut object in self.objects(ctx, &newest).await? {
            let subject = describe(&object);
            let Ok(kind) = self.cluster.kind_of(ctx, &object).await else {
                out.push(Change::new(
                    &self.name,
                    format!("{subject}: its kind"),
                    Some("absent".into()),
                    Some("installed".into()),
                ));
                continue;
            };
            let meta = &object["metadata"];
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let path = item(&kind, &text(&meta["namespace"]), &text(&meta["name"]));
            let live = self.cluster.send(ctx, &Request::get(path.clone())).await?;
            if live.status == 404 {
                out.push(Change::new(&self.name, subject, None, Some("present".into())));
                continue;
            }
            if live.ok() {
                keep_marks(&mut object, &live.json());
            }
            // what the API server would make of it: defaults and other people's fields play no part
            let q = query(&[("fieldManager", "helm"), ("force", "true"), ("dryRun", "All")]);
            let would = self.cluster.send(ctx, &Request::apply(format!("{path}{q}"), &object)).await?;
            if live.ok() && would.ok() {
                out.extend(diff::object_changes(&self.name, &subject, &live.json(), &would.json()));
            }
        }
        Ok(out)
    }
}

/// Objects that go by themselves when they are done.
const PASSING: &[&str] = &["Job", "Pod"];

impl Release {
    /// Objects of a revision's manifest that the cluster has no more, as `Service proxy-public`; one list for each kind and
    /// namespace.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub(super) async fn lacking(&self, ctx: &Ctx, stored: &Stored) -> OpResult<Vec<String>> {
        let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut out = Vec::new();
        for object in self.objects(ctx, stored).await? {
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
            let named = format!("{} {}", object["kind"].as_str().unwrap_or_default(), text("name"));
            if object["kind"].as_str().is_some_and(|k| PASSING.contains(&k)) {
                continue;
            }
            let kind = match self.cluster.kind_of(ctx, &object).await {
                Err(e) if e.is(Kind::NotFound) => {
                    out.push(named);
                    continue;
                }
                other => other?,
            };
            let path = collection(&kind, text("namespace"));
            if !there.contains_key(&path) {
                there.insert(path.clone(), self.names_at(ctx, &path).await?);
            }
            if !there[&path].contains(text("name")) {
                out.push(named);
            }
        }
        Ok(out)
    }

    async fn names_at(&self, ctx: &Ctx, path: &str) -> OpResult<BTreeSet<String>> {
        let list = self.cluster.read_json(ctx, path).await?;
        let names = list["items"].as_array().into_iter().flatten().filter_map(|o| o["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }
}

impl crate::kubernetes::Cluster {
    /// Replicas that the newest revision of a release wants of a workload; `None` when its manifest has no such workload.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn release_wants(
        &self,
        ctx: &Ctx,
        namespace: &str,
        release: &str,
        kind: &str,
        name: &str,
    ) -> OpResult<Option<i64>> {
        let release = Release { cluster: self.clone(), name: release.to_owned(), namespace: namespace.to_owned() };
        let Some(newest) = release.stored(ctx).await?.pop() else { return Ok(None) };
        let objects = parse_yaml(newest.body["manifest"].as_str().unwrap_or_default())?;
        let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        Ok(found.map(|o| o["spec"]["replicas"].as_i64().unwrap_or(1)))
    }
}

/// What helm itself writes on the objects of a release: it stands on them and not in the manifest.
const MARKS: [(&str, &str); 3] = [
    ("labels", "app.kubernetes.io/managed-by"),
    ("annotations", "meta.helm.sh/release-name"),
    ("annotations", "meta.helm.sh/release-namespace"),
];

/// Takes helm's own marks over from the live object.
fn keep_marks(object: &mut Value, live: &Value) {
    for (part, key) in MARKS {
        let mark = &live["metadata"][part][key];
        if mark.is_string() && object["metadata"][part][key].is_null() {
            object["metadata"][part][key] = mark.clone();
        }
    }
}

/// A release as one JSON object, for the Secret of a new revision.
#[must_use]
pub fn next_revision(of: &Stored, number: i64, stamp: &str) -> Value {
    let mut body = of.body.clone();
    body["version"] = number.into();
    body["info"]["status"] = "deployed".into();
    body["info"]["last_deployed"] = stamp.into();
    body["info"]["description"] = format!("Rollback to {}", of.number).into();
    body
}

/// The Secret of a revision.
#[must_use]
pub fn secret_of(name: &str, namespace: &str, number: i64, data: &str, seconds: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": {"name": format!("sh.helm.release.v1.{name}.v{number}"), "namespace": namespace,
            "labels": {"name": name, "owner": "helm", "status": "deployed", "version": number.to_string(),
                "modifiedAt": seconds.to_string()}},
        "data": {"release": data}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_helm_are_no_drift() {
        let live = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm", "mine": "x"}}});
        let mut object = json!({"metadata": {"name": "a"}});
        keep_marks(&mut object, &live);
        assert_eq!(object, json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/managed-by": "Helm"}}}));
    }

    #[test]
    fn values_differ_by_path() {
        let d = value_differences(
            &json!({"a": {"b": 1, "c": 2}, "l": [1]}),
            &json!({"a": {"b": 2, "d": {"e": 3}}, "l": [1]}),
        );
        let paths: Vec<&str> = d.iter().map(|x| x.0.as_str()).collect();
        assert_eq!(paths, ["a.b", "a.c", "a.d.e"]);
        assert_eq!(d[1].2, None);
        assert!(
            value_differences(&Value::Null, &json!({})).len() == 1
                || value_differences(&Value::Null, &json!({})).is_empty()
        );
    }
}
