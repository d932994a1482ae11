//! Server-side apply by the rules of structured-merge-diff: who owns what, what goes and what stays.
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};

const THINGS: &str = "/apis/ex.io/v1/namespaces/default/things";
const CORE: &str = "/api/v1/namespaces/default";
const APPS: &str = "/apis/apps/v1/namespaces/default";

/// A kind with every sort of container.
async fn things(bed: &Bed) {
    let text = json!({"type": "string"});
    let map = json!({"type": "object", "additionalProperties": text});
    let list = |value: Value| {
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": text, "value": value}}})
    };
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": text});
    let deep = json!({"type": "object", "additionalProperties":
        {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": map}}});
    let structure = json!({"type": "object", "properties": {"name": text, "value": {"type": "integer"},
        "inner": {"type": "object", "properties": {"name": text}}}});
    let schema = json!({"type": "object", "properties": {"struct": structure, "set": set, "lists": list(set.clone()),
        "maps": list(map.clone()), "deep": deep}});
    let definition = json!({"metadata": {"name": "things.ex.io"}, "spec": {"group": "ex.io", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let made = bed.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    assert_eq!(made.code, 201, "{}", made.text);
}

fn whole(mut part: Value) -> Value {
    part["apiVersion"] = json!("ex.io/v1");
    part["kind"] = json!("Thing");
    part["metadata"] = json!({"name": "t"});
    part
}

async fn apply(bed: &Bed, manager: &str, part: Value) -> Answer {
    bed.patch("apply", &format!("{THINGS}/t?fieldManager={manager}"), whole(part)).await
}

/// Replaces the object (or creates it), as a client that does not apply.
async fn update(bed: &Bed, manager: &str, part: Value) -> Answer {
    let mut obj = whole(part);
    let old = bed.get(&format!("{THINGS}/t")).await;
    if old.code == 404 {
        return bed.post(&format!("{THINGS}?fieldManager={manager}"), obj).await;
    }
    obj["metadata"]["resourceVersion"] = old.body["metadata"]["resourceVersion"].clone();
    bed.put(&format!("{THINGS}/t?fieldManager={manager}"), obj).await
}

/// What a manager owns.
fn owned(obj: &Value, manager: &str) -> Value {
    let list = obj["metadata"]["managedFields"].as_array().into_iter().flatten();
    list.filter(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).next().unwrap_or_default()
}

/// The object without its identity.
fn content(obj: &Value) -> Value {
    let mut v = obj.clone();
    let m = v.as_object_mut().unwrap();
    for f in ["apiVersion", "kind", "metadata"] {
        m.remove(f);
    }
    v
}

enum Op {
    Apply(&'static str, Value),
    Update(&'static str, Value),
}
use Op::{Apply, Update};

/// Does all of it; then the object is `object` and every manager owns what it says.
async fn case(name: &str, ops: Vec<Op>, object: Value, managed: &[(&str, Value)]) {
    let bed = Bed::still().await;
    things(&bed).await;
    for op in ops {
        let a = match op {
            Apply(who, part) => apply(&bed, who, part).await,
            Update(who, part) => update(&bed, who, part).await,
        };
        assert!(a.code < 300, "{name}: {}", a.text);
    }
    let obj = bed.get(&format!("{THINGS}/t")).await.body;
    assert_eq!(content(&obj), object, "{name}");
    for (who, fields) in managed {
        assert_eq!(owned(&obj, who), *fields, "{name}: {who}");
    }
}

#[tokio::test]
async fn a_field_goes_with_its_last_owner() {
    let name = |n: &str| json!({"struct": {"name": n}});
    let two = json!({"struct": {"name": "a", "value": 1}});
    case(
        "sole owner",
        vec![Apply("one", two.clone()), Apply("one", name("a"))],
        name("a"),
        &[("one", json!({"f:struct": {"f:name": {}}}))],
    )
    .await;
    case(
        "shared with an applier",
        vec![Apply("one", two.clone()), Apply("two", json!({"struct": {"value": 1}})), Apply("one", name("a"))],
        two.clone(),
        &[("one", json!({"f:struct": {"f:name": {}}})), ("two", json!({"f:struct": {"f:value": {}}}))],
    )
    .await;
    case(
        "shared with an updater",
        vec![Update("up", two.clone()), Apply("one", two.clone()), Apply("one", name("a"))],
        two.clone(),
        &[
            ("up", json!({"f:struct": {".": {}, "f:name": {}, "f:value": {}}})),
            ("one", json!({"f:struct": {"f:name": {}}})),
        ],
    )
    .await;
    case(
        "an updater's field keeps the struct",
        vec![Apply("one", name("a")), Update("up", two.clone()), Apply("one", json!({}))],
        json!({"struct": {"value": 1}}),
        &[("one", Value::Null), ("up", json!({"f:struct": {"f:value": {}}}))],
    )
    .await;
    case(
        "a struct goes as a whole",
        vec![
            Apply("one", json!({"struct": {"name": "a", "inner": {"name": "b"}}})),
            Apply("one", json!({"struct": {"name": "a"}})),
        ],
        name("a"),
        &[("one", json!({"f:struct": {"f:name": {}}}))],
    )
    .await;
    case("all of it", vec![Apply("one", two.clone()), Apply("one", json!({}))], json!({}), &[("one", Value::Null)])
        .await;
    case(
        "a changed field is the updater's",
        vec![Apply("one", name("a")), Update("up", name("b"))],
        name("b"),
        &[("one", Value::Null), ("up", json!({"f:struct": {"f:name": {}}}))],
    )
    .await;
}

#[tokio::test]
async fn items_go_unless_somebody_applies_them() {
    let (a, b) = ("k:{\"name\":\"a\"}", "k:{\"name\":\"b\"}");
    let item = |n: &str, v: &[&str]| json!({"name": n, "value": v});
    let own = json!({"f:lists": {a: {".": {}, "f:name": {}}}});
    case(
        "with something of an updater below",
        vec![
            Apply("one", json!({"lists": [{"name": "a"}, item("b", &["c"])]})),
            Apply("two", json!({"lists": [item("b", &["d"])]})),
            Update("up", json!({"lists": [{"name": "a"}, item("b", &["c", "d", "e"])]})),
            Apply("one", json!({"lists": [{"name": "a"}]})),
        ],
        json!({"lists": [{"name": "a"}, item("b", &["d", "e"])]}),
        &[
            ("one", own.clone()),
            ("two", json!({"f:lists": {b: {".": {}, "f:name": {}, "f:value": {"v:\"d\"": {}}}}})),
            ("up", json!({"f:lists": {b: {"f:value": {"v:\"e\"": {}}}}})),
        ],
    )
    .await;
    case(
        "what only an updater has below goes too",
        vec![
            Apply("one", json!({"lists": [{"name": "a"}, item("b", &["c"])]})),
            Apply("two", json!({"lists": [item("a", &["b"])]})),
            Update("up", json!({"lists": [item("a", &["b"]), item("b", &["c", "d"])]})),
            Apply("one", json!({"lists": [{"name": "a"}]})),
        ],
        json!({"lists": [item("a", &["b"])]}),
        &[("one", own), ("up", Value::Null)],
    )
    .await;
    let map = |x: Value| json!({"maps": [{"name": "a", "value": x}]});
    case(
        "entries",
        vec![Apply("one", map(json!({"b": "x", "c": "y"}))), Apply("one", map(json!({"a": "x", "c": "z"})))],
        map(json!({"c": "z", "a": "x"})),
        &[("one", json!({"f:maps": {a: {".": {}, "f:name": {}, "f:value": {"f:a": {}, "f:c": {}}}}}))],
    )
    .await;
    case(
        "maps in maps",
        vec![
            Apply("one", json!({"deep": {"a": {"b": {}}, "c": {"d": {}}}})),
            Apply("two", json!({"deep": {"a": {}, "c": {"d": {}}}})),
            Update("up", json!({"deep": {"a": {"b": {"c": {}}}, "c": {"d": {"e": {}}}}})),
            Apply("one", json!({"deep": {}})),
        ],
        json!({"deep": {"a": {}, "c": {"d": {"e": {}}}}}),
        &[
            ("one", json!({"f:deep": {}})),
            ("two", json!({"f:deep": {"f:a": {}, "f:c": {".": {}, "f:d": {}}}})),
            ("up", json!({"f:deep": {"f:c": {"f:d": {"f:e": {}}}}})),
        ],
    )
    .await;
}

#[tokio::test]
async fn order_follows_who_changes_the_list() {
    let set = |v: &[&str]| json!({"set": v});
    case(
        "reorder",
        vec![Apply("one", set(&["a", "b", "c"])), Apply("one", set(&["c", "b", "a"]))],
        set(&["c", "b", "a"]),
        &[],
    )
    .await;
    case(
        "theirs stay where they are",
        vec![
            Apply("one", set(&["a", "b", "c", "d"])),
            Update("up", set(&["a", "b", "x", "c", "d"])),
            Apply("one", set(&["a", "d", "b"])),
        ],
        set(&["a", "x", "d", "b"]),
        &[("up", json!({"f:set": {"v:\"x\"": {}}}))],
    )
    .await;
    case("added", vec![Update("up", set(&["1", "3"])), Apply("one", set(&["5"]))], set(&["1", "3", "5"]), &[]).await;
    case(
        "an empty list is nobody's",
        vec![Apply("one", json!({"set": [], "struct": {"name": "a"}}))],
        json!({"set": [], "struct": {"name": "a"}}),
        &[("one", json!({"f:struct": {"f:name": {}}}))],
    )
    .await;
}

fn map(annotations: Value, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "annotations": annotations}, "data": data})
}

#[tokio::test]
async fn what_an_owned_entry_is_in_stays() {
    let bed = Bed::still().await;
    let at = |who: &str| format!("{CORE}/configmaps/m?fieldManager={who}");
    // One manager has the map itself, the other an entry of it.
    bed.post(&format!("{CORE}/configmaps?fieldManager=up"), map(json!({"theirs": "1"}), json!({"a": "1"}))).await;
    let a = bed.patch("apply", &at("me"), map(json!({"mine": "1"}), json!({"b": "1"}))).await;
    assert_eq!(a.code, 200, "{}", a.text);
    let a = bed.patch("apply", &at("me"), json!({"apiVersion": "v1", "kind": "ConfigMap"})).await;
    assert_eq!(a.body["metadata"]["annotations"], json!({"theirs": "1"}), "{}", a.text);
    assert_eq!((&a.body["data"], owned(&a.body, "me")), (&json!({"a": "1"}), Value::Null));
    // The map's own member is lost with the last manager that set it as a whole; the entry's owner keeps it.
    let taken = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [
        {"manager": "whole", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": {".": {}, "f:gone": {}}}, "f:data": {".": {}}}},
        {"manager": "part", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": {"f:theirs": {}}}, "f:data": {"f:a": {}}}}]}]);
    assert_eq!(bed.patch("json", &at("x"), taken).await.code, 200);
    let a = bed.patch("apply", &at("whole"), json!({"apiVersion": "v1", "kind": "ConfigMap"})).await;
    assert_eq!(
        (&a.body["metadata"]["annotations"], &a.body["data"]),
        (&json!({"theirs": "1"}), &json!({"a": "1"})),
        "{}",
        a.text
    );
    let a = bed.patch("apply", &at("part"), json!({"apiVersion": "v1", "kind": "ConfigMap"})).await;
    assert_eq!((a.body["metadata"].get("annotations"), a.body.get("data")), (None, None), "{}", a.text);
}

fn deployment(replicas: Value, container: Value) -> Value {
    let mut d = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container]}}}});
    if !replicas.is_null() {
        d["spec"]["replicas"] = replicas;
    }
    d
}

#[tokio::test]
async fn conflicts_name_every_writer_in_the_way() {
    let bed = Bed::still().await;
    let at = format!("{APPS}/deployments/d");
    let env = |v: &str| json!({"name": "c", "image": "nginx:1", "env": [{"name": "A", "value": v}]});
    let a = bed.patch("apply", &format!("{at}?fieldManager=one"), deployment(json!(1), env("1"))).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let scaled = bed.patch("merge", &format!("{at}/scale?fieldManager=hand"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(scaled.code, 200, "{}", scaled.text);
    bed.patch("merge", &format!("{at}?fieldManager=up"), json!({"spec": {"paused": true}})).await;
    let a = bed.patch("apply", &format!("{at}?fieldManager=one"), deployment(json!(1), env("2"))).await;
    assert_eq!(
        (a.code, a.message()),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"hand\" with subresource \"scale\" using apps/v1: .spec.replicas"
        )
    );
    let mut other = deployment(json!(1), env("2"));
    other["spec"]["paused"] = json!(false);
    let a = bed.patch("apply", &format!("{at}?fieldManager=two"), other.clone()).await;
    let env_path = ".spec.template.spec.containers[name=\"c\"].env[name=\"A\"].value";
    for want in [
        "Apply failed with 3 conflicts: ",
        &format!("conflicts with \"one\":\n- {env_path}"),
        "conflicts with \"hand\" with subresource \"scale\" using apps/v1:\n- .spec.replicas",
        "conflicts with \"up\" using apps/v1:\n- .spec.paused",
    ] {
        assert!(a.message().contains(want), "no `{want}` in {}", a.message());
    }
    let causes = a.body["details"]["causes"].as_array().unwrap();
    assert!(causes.iter().any(|c| c["field"] == env_path && c["message"] == "conflict with \"one\""), "{}", a.text);
    let a = bed.patch("apply", &format!("{at}?fieldManager=two&force=true"), other).await;
    assert_eq!(
        (a.code, &a.body["spec"]["replicas"], owned(&a.body, "hand")),
        (200, &json!(1), Value::Null),
        "{}",
        a.text
    );
    // A probe goes with the defaults that nobody owns; without the owner of `replicas` it is one again.
    let mut probe = env("2");
    probe["livenessProbe"] = json!({"httpGet": {"port": 80}});
    bed.patch("apply", &format!("{at}?fieldManager=two&force=true"), deployment(json!(2), probe)).await;
    let a = bed.patch("apply", &format!("{at}?fieldManager=two"), deployment(Value::Null, env("2"))).await;
    assert_eq!(a.body["spec"]["template"]["spec"]["containers"][0].get("livenessProbe"), None, "{}", a.text);
    assert_eq!(a.body["spec"]["replicas"], 1);
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_from_the_client() {
    let bed = Bed::still().await;
    let at = |who: &str| format!("{CORE}/configmaps/m?fieldManager={who}");
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let said = map(json!({}), json!({"a": "1", "b": "1"})).to_string();
    let made = map(json!({LAST: said}), json!({"a": "1", "b": "1"}));
    bed.post(&format!("{CORE}/configmaps?fieldManager=kubectl-client-side-apply"), made).await;
    let next = |a: &str, b: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "default"},
            "data": {"a": a, "b": b}})
    };
    let a = bed.patch("apply", &at("somebody"), next("2", "1")).await;
    assert_eq!(a.code, 409, "{}", a.text);
    // Somebody else has changed `b` since: only that is in the way.
    bed.patch("merge", &at("editor"), json!({"data": {"b": "9"}})).await;
    let a = bed.patch("apply", &at("kubectl"), next("2", "2")).await;
    assert_eq!(
        (a.code, a.message()),
        (409, "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.b")
    );
    let a = bed.patch("apply", &at("kubectl"), next("2", "9")).await;
    assert_eq!(a.code, 200, "{}", a.text);
    let kept: Value = serde_json::from_str(a.body["metadata"]["annotations"][LAST].as_str().unwrap()).unwrap();
    assert_eq!(kept, next("2", "9"));
    assert!(a.body["metadata"]["annotations"][LAST].as_str().unwrap().ends_with("}\n"));
    // Writers that were never recorded are one writer from before.
    let clear = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    bed.patch("json", &at("x"), clear).await;
    let a = bed.patch("apply", &at("me"), next("3", "9")).await;
    assert_eq!(
        (a.code, a.message()),
        (409, "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a")
    );
}
