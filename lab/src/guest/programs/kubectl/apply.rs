//! `kubectl apply`, `create -f`, `replace -f`: objects of files put onto the server.
use http::Method;
use serde_json::{Map, Value};

use super::super::Call;
use super::files::{Document, documents};
use super::items::{Item, kind_of, path_of};
use super::output::{Dry, said, speaks};
use super::request::{At, Change, Form, refusal};
use super::words::Words;
use crate::kube::schema::node::Node;
use crate::kube::store::threeway;
use crate::kube::text::ordered;

/// Where `kubectl apply` keeps what it applied.
pub(super) const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";

const OPTIONS: &str = "filename/f= recursive/R dry-run server-side force-conflicts field-manager= output/o= wait validate= \
    overwrite save-config";

/// How an object is put there.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    Apply,
    Create,
    Replace,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Apply => "apply",
            Way::Create => "create",
            Way::Replace => "replace",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Way::Apply => "applying patch to",
            Way::Create => "creating",
            Way::Replace => "replacing",
        }
    }
}

/// What the command says for every object.
struct Job<'a> {
    w: &'a Words,
    way: Way,
    dry: Dry,
}

/// Runs `apply`, `create -f` or `replace -f`; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String], way: Way) -> Option<i32> {
    let w = Words::read(words, OPTIONS)?;
    let dry = Dry::of(&w)?;
    if !speaks(&w) || !w.bare.is_empty() {
        return None;
    }
    if w.value("filename").is_none() {
        return Some(c.fail(1, "error: must specify one of -f and -k"));
    }
    let all = match documents(c, &w, true).await {
        Ok(all) => all?,
        Err(code) => return Some(code),
    };
    if all.is_empty() {
        let text = format!("error: no objects passed to {}", way.name());
        return Some(c.fail(1, &text));
    }
    let job = Job { w: &w, way, dry };
    let mut code = 0;
    for d in &all {
        if let Err(text) = one(c, at, &job, d).await {
            code = c.fail(1, &text);
        }
    }
    Some(code)
}

async fn one(c: &mut Call, at: &At, job: &Job<'_>, d: &Document) -> Result<(), String> {
    let meta = &d.object["metadata"];
    let (name, ns) = (meta["name"].as_str().unwrap_or_default(), meta["namespace"].as_str());
    let kind = kind_of(c, at, &d.object).ok_or_else(|| d.unmapped())?;
    if let Some(asked) = job.w.value("namespace").filter(|n| kind.namespaced && ns.is_some_and(|have| have != *n)) {
        return Err(format!(
            "error: the namespace from the provided object \"{}\" does not match the namespace \"{asked}\". You must pass '--namespace={}' to perform this operation.",
            ns.unwrap_or_default(),
            ns.unwrap_or_default()
        ));
    }
    let item = Item::new(kind, ns.unwrap_or(&job.w.namespace()), name);
    if name.is_empty() && job.way == Way::Apply && !job.w.on("server-side") {
        return Err(nameless(&item, d));
    }
    let mut object = d.object.clone();
    if let Some(ns) = &item.namespace {
        object["metadata"]["namespace"] = ns.clone().into();
    }
    match job.way {
        Way::Apply if job.w.on("server-side") => server_side(c, at, job, &item, &object).await,
        Way::Apply => client_side(c, at, job, &item, object, d).await,
        Way::Create => create(c, at, job, &item, &object, &d.from).await,
        Way::Replace => {
            let query = format!("fieldManager=kubectl-replace&fieldValidation=Strict{}", job.dry.query());
            let path = item.path();
            let sent = Change { method: Method::PUT, path: &path, query: &query, form: Form::Plain, body: &object };
            let after = sent
                .send(c, at)
                .await
                .map_err(|v| refusal(&v, &format!("error when {} \"{}\"", job.way.doing(), d.from)))?;
            said(c, job.w, &item, "replaced", job.dry, &after);
            Ok(())
        }
    }
}

/// What kubectl says of an object that it cannot ask for.
fn nameless(item: &Item, d: &Document) -> String {
    if let Some(prefix) = d.object["metadata"]["generateName"].as_str() {
        return format!("error: from {prefix}: cannot use generate name with apply");
    }
    let (k, ns) = (&item.kind, item.namespace.as_deref().unwrap_or_default());
    let group = format!("{}/{}", k.group, k.version);
    format!(
        "error: error when retrieving current configuration of:\nResource: \"{group}, Resource={}\", GroupVersionKind: \"{group}, Kind={}\"\nName: \"\", Namespace: \"{ns}\"\nfrom server for: \"{}\": resource name may not be empty",
        k.plural, k.kind, d.from
    )
}

async fn create(c: &mut Call, at: &At, job: &Job<'_>, item: &Item, object: &Value, from: &str) -> Result<(), String> {
    if job.dry == Dry::Client {
        said(c, job.w, item, "created", job.dry, object);
        return Ok(());
    }
    let manager = if job.way == Way::Apply { "kubectl-client-side-apply" } else { "kubectl-create" };
    let query = format!("fieldManager={manager}&fieldValidation=Strict{}", job.dry.query());
    let path = path_of(&item.kind, item.namespace.as_deref());
    let sent = Change { method: Method::POST, path: &path, query: &query, form: Form::Plain, body: object };
    let after = sent.send(c, at).await.map_err(|v| refusal(&v, &format!("error when creating \"{from}\"")))?;
    let item = Item { name: after["metadata"]["name"].as_str().unwrap_or(&item.name).to_owned(), ..item.clone() };
    said(c, job.w, &item, "created", job.dry, &after);
    Ok(())
}

/// The object with the annotation that says what was applied.
fn annotated(object: &Value) -> Value {
    let mut plain = object.clone();
    if let Some(a) = plain["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        a.shift_remove(LAST);
    } else if let Some(m) = plain["metadata"].as_object_mut() {
        m.insert("annotations".to_owned(), Value::Object(Map::new()));
    }
    let text = format!("{}\n", ordered(&plain));
    plain["metadata"]["annotations"][LAST] = text.into();
    plain
}

async fn client_side(
    c: &mut Call,
    at: &At,
    job: &Job<'_>,
    item: &Item,
    object: Value,
    d: &Document,
) -> Result<(), String> {
    let wanted = annotated(&object);
    let current = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) if v["code"] == 404 => return create(c, at, job, item, &wanted, &d.from).await,
        Err(v) => return Err(refusal(&v, &format!("error when retrieving current configuration of \"{}\"", d.from))),
    };
    let text = current["metadata"]["annotations"][LAST].as_str().unwrap_or_default();
    if text.is_empty() {
        c.complain(&format!("Warning: resource {}s/{} is missing the {LAST} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
            item.kind.singular, item.name));
    }
    let last: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let node = (!item.kind.custom).then(|| Node::of(&item.kind));
    let patch = threeway::patch(node, &last, &wanted, &current);
    if patch.is_empty() || job.dry == Dry::Client {
        said(c, job.w, item, if patch.is_empty() { "unchanged" } else { "configured" }, job.dry, &current);
        return Ok(());
    }
    let query = format!("fieldManager=kubectl-client-side-apply&fieldValidation=Strict{}", job.dry.query());
    let form = if item.kind.custom { Form::Merge } else { Form::Strategic };
    let (path, body) = (item.path(), Value::Object(patch));
    let sent = Change { method: Method::PATCH, path: &path, query: &query, form, body: &body };
    let after = sent.send(c, at).await.map_err(|v| {
        refusal(
            &v,
            &format!(
                "error when applying patch:\n{body}\nto:\nResource: \"{}\"\nfor: \"{}\"",
                item.kind.plural, d.from
            ),
        )
    })?;
    said(c, job.w, item, "configured", job.dry, &after);
    Ok(())
}

async fn server_side(c: &mut Call, at: &At, job: &Job<'_>, item: &Item, object: &Value) -> Result<(), String> {
    let manager = job.w.value("field-manager").unwrap_or("kubectl");
    let force = job.w.on("force-conflicts");
    let query = format!("fieldManager={manager}&force={force}&fieldValidation=Strict{}", job.dry.query());
    let path = item.path();
    let sent = Change { method: Method::PATCH, path: &path, query: &query, form: Form::Apply, body: object };
    match sent.send(c, at).await {
        Ok(after) => {
            said(c, job.w, item, "serverside-applied", job.dry, &after);
            Ok(())
        }
        Err(v) if v["reason"] == "Conflict" => {
            Err(format!("error: {}\n{CONFLICTS}", v["message"].as_str().unwrap_or_default()))
        }
        Err(v) => Err(refusal(&v, "")),
    }
}

const CONFLICTS: &str = "Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_applied_is_written_into_its_annotation() {
        let o = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "annotations": {LAST: "old", "x": "y"}}});
        let got = annotated(&o);
        let want = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{\"x\":\"y\"},\"name\":\"a\"}}\n";
        assert_eq!(got["metadata"]["annotations"][LAST], want);
        assert!(
            annotated(&json!({"metadata": {"name": "a"}}))["metadata"]["annotations"][LAST]
                .as_str()
                .unwrap()
                .contains("\"annotations\":{}")
        );
    }
}
