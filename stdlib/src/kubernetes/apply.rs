//! Applying objects: read, dry-run, diff, and only then write. Equal objects are not touched.
use serde_json::{Value, json};

use super::Cluster;
use super::diff::{MANAGED_BY, MANAGER, is_ours, object_changes, other_owner};
use super::kinds::Kind;
use super::objects::describe;
use super::prune::{SET, set_id};
use super::rest::{Request, item};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind as ErrorKind, OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::options;

options! {
    /// How to apply.
    pub struct ApplyOptions {
        /// Namespace of objects that name none; `default` when left out.
        namespace: String = String::new(),
        /// Take fields and objects over from other field managers, from Helm and from Fleet.
        take_over: bool = false,
    }
}

options! {
    /// How to apply manifests.
    pub struct ManifestOptions {
        /// Namespace of objects that name none; `default` when left out.
        namespace: String = String::new(),
        /// Take fields and objects over from other field managers, from Helm and from Fleet.
        take_over: bool = false,
        /// Name of the set these objects are: what the set had before and is not among them is removed.
        prune: Option<String> = None,
        /// Only ask the server what would change: the same list comes back, and nothing is written or removed.
        dry_run: bool = false,
    }
}

/// One object that has to be written.
pub struct Planned {
    object: Value,
    kind: Option<Kind>,
    force: bool,
    /// What will differ.
    pub changes: Vec<Change>,
}

/// Reads objects from YAML text (several documents are fine).
///
/// # Errors
/// `invalid` with the parser's text.
pub fn parse_yaml(text: &str) -> OpResult<Vec<Value>> {
    Ok(documents(text)?.into_iter().flatten().collect())
}

/// The objects of each document that is not empty.
fn documents(text: &str) -> OpResult<Vec<Vec<Value>>> {
    let docs: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| OpError::invalid("the YAML cannot be read").because(e.to_string()))?;
    Ok(docs.into_iter().filter(|d| !d.is_null()).map(flatten_list).collect())
}

/// What an op is about that applies these.
fn subject_of(cluster: &str, objects: &[Value]) -> String {
    match objects {
        [] => cluster.to_owned(),
        [one] => describe(one),
        [first, rest @ ..] => format!("{} and {} more", describe(first), rest.len()),
    }
}

/// What errors call an object: as it is written, and with the namespace that it gets.
fn subjects(object: &Value, namespace: &str) -> [String; 2] {
    let placed = dressed(object.clone(), None, namespace).unwrap_or_else(|_| object.clone());
    [describe(object), describe(&placed)]
}

/// A `List` is its items.
fn flatten_list(object: Value) -> Vec<Value> {
    match (object["kind"].as_str(), object["items"].as_array()) {
        (Some(kind), Some(items)) if kind.ends_with("List") => items.clone(),
        _ => vec![object],
    }
}

/// Namespaces and CRDs come before what needs them.
fn rank(object: &Value) -> u8 {
    match object["kind"].as_str() {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        _ => 2,
    }
}

/// Texts of a manifest file, or of the manifest files of a folder.
fn manifest_files(ctx: &Ctx, path: &str) -> OpResult<Vec<(String, String)>> {
    let full = crate::flow::files::granted(ctx, path)?;
    let read = |p: &std::path::Path, name: &str| {
        std::fs::read_to_string(p).map(|t| (name.to_owned(), t)).map_err(|e| {
            OpError::not_found(format!("cannot read `{name}`"))
                .on(name)
                .because(e.to_string())
                .hint(format!("the path is taken from {}", ctx.base_dir.display()))
        })
    };
    if !full.is_dir() {
        return Ok(vec![read(&full, path)?]);
    }
    let mut names: Vec<String> = std::fs::read_dir(&full)
        .map_err(|e| OpError::not_found(format!("cannot read `{path}`")).because(e.to_string()))?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.ends_with(".yaml") || n.ends_with(".yml"))
        .collect();
    names.sort();
    names.iter().map(|n| read(&full.join(n), &format!("{path}/{n}"))).collect()
}

fn labelled(mut object: Value, key: &str, value: &str) -> Value {
    if object["metadata"].is_object() {
        if !object["metadata"]["labels"].is_object() {
            object["metadata"]["labels"] = json!({});
        }
        object["metadata"]["labels"][key] = value.into();
    }
    object
}

/// Our label on an object, its namespace filled in.
fn dressed(mut object: Value, kind: Option<&Kind>, namespace: &str) -> OpResult<Value> {
    if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        return Err(OpError::invalid(format!(
            "a {} has no `metadata.name`",
            object["kind"].as_str().unwrap_or("object")
        )));
    }
    if kind.is_none_or(|k| k.namespaced) && object["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
        let ns = if namespace.is_empty() { "default" } else { namespace };
        object["metadata"]["namespace"] = ns.into();
    }
    if object["metadata"]["labels"][MANAGED_BY].is_null() {
        if !object["metadata"]["labels"].is_object() {
            object["metadata"]["labels"] = json!({});
        }
        object["metadata"]["labels"][MANAGED_BY] = MANAGER.into();
    }
    Ok(object)
}

impl Cluster {
    /// Applies the objects of a file, or of every `.yaml` and `.yml` file of a folder, by name.
    ///
    /// # Errors
    /// `not_found` without the file; like [`Cluster::apply_objects`].
    pub async fn apply_path(&self, ctx: &Ctx, path: &str, o: &ManifestOptions) -> OpResult<Vec<Change>> {
        let (mut objects, mut places) = (Vec::new(), Vec::new());
        for (name, text) in manifest_files(ctx, path)? {
            for (i, doc) in documents(&text).map_err(|e| e.on(&name))?.into_iter().enumerate() {
                for object in doc {
                    places.push((subjects(&object, &o.namespace), format!("{name}, document {}", i + 1)));
                    objects.push(object);
                }
            }
        }
        self.apply_set(ctx, objects, o).await.map_err(|mut e| {
            // whichever object it is about: one does not search a folder for it
            if let Some((_, place)) = places.iter().find(|(names, _)| names.contains(&e.target)) {
                e.causes.insert(0, format!("it is declared in {place}"));
            }
            e
        })
    }

    /// Applies objects; with `prune` it then removes what the set had before.
    ///
    /// # Errors
    /// Like [`Cluster::apply_objects`] and [`Cluster::prune`].
    pub async fn apply_set(&self, ctx: &Ctx, objects: Vec<Value>, o: &ManifestOptions) -> OpResult<Vec<Change>> {
        let apply = ApplyOptions { namespace: o.namespace.clone(), take_over: o.take_over };
        let id = o.prune.as_ref().map(|name| set_id(ctx, name)).transpose()?;
        let objects: Vec<Value> = match &id {
            Some(id) => objects.into_iter().map(|x| labelled(x, SET, id)).collect(),
            None => objects,
        };
        let mut changes = if o.dry_run {
            self.preview_objects(ctx, objects.clone(), &apply).await?
        } else {
            self.apply_objects(ctx, objects.clone(), &apply).await?
        };
        let Some(id) = id else { return Ok(changes) };
        let mut placed = Vec::new();
        for object in objects {
            // a kind whose definition would only come with it has nothing in the cluster
            let kind = match self.kind_of(ctx, &object).await {
                Err(e) if o.dry_run && e.is(ErrorKind::NotFound) => None,
                other => Some(other?),
            };
            placed.push(dressed(object, kind.as_ref(), &o.namespace)?);
        }
        changes.extend(if o.dry_run {
            self.leaving(ctx, &id, &placed).await?.1
        } else {
            self.prune(ctx, &id, &placed).await?
        });
        Ok(changes)
    }

    /// What applying these objects would change, by the server's own dry run.
    ///
    /// # Errors
    /// Like [`Cluster::apply_objects`].
    pub async fn preview_objects(&self, ctx: &Ctx, objects: Vec<Value>, o: &ApplyOptions) -> OpResult<Vec<Change>> {
        let op = Op::read("kubernetes", "apply", subject_of(self.name(), &objects)).args(&objects);
        ctx.run_op(op, |s| async move {
            let planned = self.plan_objects(s.ctx(), objects, o).await?;
            for p in &planned {
                let Some(kind) = &p.kind else { continue };
                match self.patch(s.ctx(), kind, &p.object, p.force, true).await {
                    // its namespace would come with it
                    Err(e) if e.is(ErrorKind::NotFound) => {}
                    other => other.map(drop)?,
                }
            }
            Ok(planned.into_iter().flat_map(|p| p.changes).collect())
        })
        .await
    }

    /// Applies objects as one op; returns what changed.
    ///
    /// # Errors
    /// `refused` for objects of Fleet or Helm; `conflict` naming the other field manager.
    pub async fn apply_objects(&self, ctx: &Ctx, objects: Vec<Value>, o: &ApplyOptions) -> OpResult<Vec<Change>> {
        let op = Op::write("kubernetes", "apply", subject_of(self.name(), &objects)).args(&objects);
        let o = o.clone();
        ctx.run_op(op, |s| async move {
            let planned = self.plan_objects(s.ctx(), objects, &o).await?;
            self.write_planned(&s, planned).await?;
            Ok(s.changes())
        })
        .await
    }

    /// Reads, dry-runs and diffs objects inside another op.
    ///
    /// # Errors
    /// Like [`Cluster::apply_objects`].
    pub async fn plan_objects(&self, ctx: &Ctx, mut objects: Vec<Value>, o: &ApplyOptions) -> OpResult<Vec<Planned>> {
        self.validate_objects(ctx, &objects).await?;
        objects.sort_by_key(rank);
        let crds: Vec<String> = objects
            .iter()
            .filter(|x| rank(x) == 1)
            .filter_map(|x| x["spec"]["names"]["kind"].as_str().map(str::to_owned))
            .collect();
        let mut out = Vec::new();
        for object in objects {
            let kind = match self.kind_of(ctx, &object).await {
                Ok(k) => Some(k),
                // its CRD comes with it
                Err(_) if object["kind"].as_str().is_some_and(|k| crds.iter().any(|c| c == k)) => None,
                Err(e) => return Err(e),
            };
            let object = dressed(object, kind.as_ref(), &o.namespace)?;
            out.extend(self.plan_object(ctx, object, kind, o.take_over).await?);
        }
        Ok(out)
    }

    async fn plan_object(
        &self,
        ctx: &Ctx,
        object: Value,
        kind: Option<Kind>,
        take_over: bool,
    ) -> OpResult<Option<Planned>> {
        let subject = describe(&object);
        let live = match &kind {
            Some(k) => {
                let reply = self.send(ctx, &Request::get(path_of(k, &object))).await?;
                match reply.status {
                    404 => None,
                    _ if reply.ok() => Some(reply.json()),
                    _ => return Err(reply.error(&subject)),
                }
            }
            None => None,
        };
        let Some(live) = live else {
            let changes = vec![Change::new(self.name(), subject, None, Some("present".into()))];
            return Ok(Some(Planned { object, kind, force: false, changes }));
        };
        if let Some(owner) = other_owner(&live).filter(|_| !take_over) {
            return Err(OpError::refused(format!("it belongs to {owner}"))
                .on(subject)
                .hint("change it where its owner keeps it, or hand it over for good: `#{ take_over: true }`"));
        }
        let force = take_over || is_ours(&live);
        let Some(kind) = kind else { return Ok(None) };
        let wanted = self.patch(ctx, &kind, &object, force, true).await?;
        let changes = object_changes(self.name(), &subject, &live, &wanted);
        Ok((!changes.is_empty()).then_some(Planned { object, kind: Some(kind), force, changes }))
    }

    /// Writes what was planned; nothing planned is no change.
    ///
    /// # Errors
    /// What the API server refused.
    pub async fn write_planned(&self, s: &OpScope, planned: Vec<Planned>) -> OpResult<()> {
        for p in planned {
            let marker = describe(&p.object);
            let reference = s
                .act(marker, p.changes, async {
                    let kind = match p.kind {
                        Some(k) => k,
                        None => self.kind_once_served(s, &p.object).await?,
                    };
                    let made = self.patch(s.ctx(), &kind, &p.object, p.force, false).await?;
                    Ok(made["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
                })
                .await?;
            s.accepted(reference)?;
        }
        Ok(())
    }

    /// The kind of an object whose CRD was just written.
    async fn kind_once_served(&self, s: &OpScope, object: &Value) -> OpResult<Kind> {
        let (every, limit) = (std::time::Duration::from_secs(2), std::time::Duration::from_secs(60));
        s.wait_for("the new kind", every, limit, || async {
            match self.kind_of(s.ctx(), object).await {
                Ok(k) => Ok(crate::core::op::Look::Ready(k)),
                Err(e) if e.is(ErrorKind::NotFound) => Ok(crate::core::op::Look::Pending(e.message)),
                Err(e) => Err(e),
            }
        })
        .await
    }

    async fn patch(&self, ctx: &Ctx, kind: &Kind, object: &Value, force: bool, dry: bool) -> OpResult<Value> {
        let q = super::rest::query(&[
            ("fieldManager", MANAGER),
            ("force", if force { "true" } else { "" }),
            ("dryRun", if dry { "All" } else { "" }),
            ("fieldValidation", "Strict"),
        ]);
        let reply = self.send(ctx, &Request::apply(format!("{}{q}", path_of(kind, object)), object)).await?;
        if reply.ok() {
            return Ok(reply.json());
        }
        let e = reply.error(&describe(object));
        Err(if e.is(ErrorKind::Conflict) {
            e.hint("another field manager holds these fields: pass `#{ take_over: true }` if gpuhost shall own them")
        } else {
            e
        })
    }
}

fn path_of(kind: &Kind, object: &Value) -> String {
    let meta = &object["metadata"];
    item(kind, meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_lists_and_order() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\nkind: List\nitems:\n- {kind: Namespace, metadata: {name: n}}\n";
        let mut objects = parse_yaml(text).unwrap();
        assert_eq!(objects.len(), 2);
        objects.sort_by_key(rank);
        assert_eq!(objects[0]["kind"], "Namespace");
        let pod = dressed(objects[1].clone(), None, "x").unwrap();
        assert_eq!(pod["metadata"]["namespace"], "x");
        assert_eq!(pod["metadata"]["labels"][MANAGED_BY], MANAGER);
        assert!(dressed(json!({"kind": "Pod"}), None, "").is_err());
        assert_eq!(documents(text).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(subjects(&objects[1], "x"), ["Pod a", "Pod x/a"]);
    }
}
