//! CustomResourceDefinitions: what makes them invalid, names that others have, versions, and how they go.
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::refused::refuses;
use crate::validity::pass;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FOOS: &str = "/apis/wire.example/v1/namespaces/default/foos";

fn crd(plural: &str, kind: &str, spec: Value) -> Value {
    json!({"metadata": {"name": format!("{plural}.wire.example")}, "spec": {"group": "wire.example", "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

fn spec(properties: Value) -> Value {
    json!({"versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}]})
}

#[tokio::test]
async fn schemas_and_names_are_checked() {
    let bed = Bed::still().await;
    let at = "spec.validation.openAPIV3Schema.properties[a]";
    let wrong = [
        (json!({"a": {"type": "odd"}}), format!("{at}.type: Unsupported value: \"odd\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"")),
        (json!({"a": {"type": "array"}}), format!("{at}.items: Required value: must be specified")),
        (json!({"a": {"type": "string", "default": 1}}), format!("{at}.default: Invalid value: \"integer\":  in body must be of type string: \"integer\"")),
        (json!({"a": {"type": "string", "pattern": "["}}), format!("{at}.pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ]: `[`")),
        (json!({"a": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}}), format!("{at}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map")),
        (json!({"a": {"type": "string", "uniqueItems": true}}), format!("{at}.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic")),
        (json!({"a": {"type": "string", "oneOf": [{"type": "string"}]}}), format!("{at}.oneOf[0].type: Forbidden: must be empty to be structural")),
        (json!({"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}), "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified".to_owned()),
    ];
    let good = crd("foos", "Foo", json!({"type": "object"}));
    for (properties, why) in wrong {
        refuses(&bed, CRDS, &good, &[(json!({"spec": spec(properties)}), &[why.as_str()])]).await;
    }
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"names": {"kind": "1foo", "singular": "foo"}}}),
            &[
                "spec.names.kind: Invalid value: \"1foo\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                "spec.names.listKind: Invalid value: \"1fooList\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            json!({"spec": {"preserveUnknownFields": true}}),
            &[
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ],
        ),
    ];
    refuses(&bed, CRDS, &good, table).await;
    assert_eq!(bed.post(CRDS, good).await.code, 201);
    let a = bed.patch("merge", &format!("{CRDS}/foos.wire.example"), json!({"spec": {"scope": "Cluster"}})).await;
    assert!(a.message().ends_with("spec.scope: Invalid value: \"Cluster\": field is immutable"), "{}", a.text);
}

#[tokio::test]
async fn a_name_is_given_once() {
    let bed = Bed::running().await;
    bed.post(CRDS, crd("foos", "Foo", json!({"type": "object"}))).await;
    bed.post(CRDS, crd("bars", "Foo", json!({"type": "object"}))).await;
    let a = bed.get(&format!("{CRDS}/bars.wire.example")).await;
    let conditions = a.body["status"]["conditions"].as_array().unwrap();
    let told = |kind: &str| {
        let c = conditions.iter().find(|c| c["type"] == kind).unwrap();
        (
            c["status"].as_str().unwrap().to_owned(),
            c["reason"].as_str().unwrap().to_owned(),
            c["message"].as_str().unwrap().to_owned(),
        )
    };
    let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(told("NamesAccepted"), three("False", "ListKindConflict", "\"FooList\" is already in use"));
    assert_eq!(told("Established"), three("False", "NotAccepted", "not all names are accepted"));
    assert_eq!(bed.get("/apis/wire.example/v1/namespaces/default/bars").await.code, 404);
    bed.delete(&format!("{CRDS}/foos.wire.example"), Value::Null).await;
    pass(&bed, 1).await;
    assert_eq!(bed.get("/apis/wire.example/v1/namespaces/default/bars").await.code, 200, "the name is free");
}

#[tokio::test]
async fn objects_are_shown_in_every_version() {
    let bed = Bed::still().await;
    let mut two = crd("foos", "Foo", json!({"type": "object", "properties": {"a": {"type": "string"}}}));
    let old = json!({"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    two["spec"]["versions"].as_array_mut().unwrap().push(old);
    assert_eq!(bed.post(CRDS, two).await.code, 201);
    let beta = FOOS.replace("v1/", "v1beta1/");
    let foo = |version: &str, name: &str| json!({"apiVersion": format!("wire.example/{version}"), "kind": "Foo", "metadata": {"name": name}, "spec": {"a": "x"}});
    let a = bed.post(&beta, foo("v1beta1", "one")).await;
    assert_eq!((a.code, &a.body["apiVersion"]), (201, &json!("wire.example/v1beta1")), "{}", a.text);
    assert_eq!(a.warnings, ["299 - \"wire.example/v1beta1 Foo is deprecated; use wire.example/v1 Foo\""]);
    let a = bed.get(&format!("{FOOS}/one")).await;
    assert_eq!((&a.body["apiVersion"], a.warnings.len()), (&json!("wire.example/v1"), 0));
    let version = a.body["metadata"]["resourceVersion"].clone();
    let a = bed.get(&beta).await;
    assert_eq!(a.body["items"][0]["apiVersion"], "wire.example/v1beta1");
    let a = bed.patch("merge", &format!("{beta}/one"), json!({"spec": {"a": "x"}})).await;
    assert_eq!(
        (&a.body["metadata"]["resourceVersion"], &a.body["apiVersion"]),
        (&version, &json!("wire.example/v1beta1"))
    );
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let bed = Bed::still().await;
    bed.post(CRDS, crd("foos", "Foo", json!({"type": "object"}))).await;
    let foo = |name: &str, held: &[&str]| json!({"apiVersion": "wire.example/v1", "kind": "Foo", "metadata": {"name": name, "finalizers": held}});
    bed.post(FOOS, foo("free", &[])).await;
    bed.post(FOOS, foo("held", &["wire.example/hold"])).await;
    let a = bed.delete(&format!("{CRDS}/foos.wire.example"), Value::Null).await;
    assert_eq!((a.code, &a.body["kind"]), (200, &json!("CustomResourceDefinition")), "{}", a.text);
    assert_eq!(a.body["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(bed.get(&format!("{FOOS}/free")).await.code, 404);
    let a = bed.post(FOOS, foo("new", &[])).await;
    assert_eq!((a.code, a.message()), (405, "create not allowed while custom resource definition is terminating"));
    bed.patch("merge", &format!("{FOOS}/held"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(bed.get(&format!("{CRDS}/foos.wire.example")).await.code, 404);
}

#[tokio::test]
async fn alternatives_and_sets() {
    let bed = Bed::still().await;
    let one = json!({"type": "object", "oneOf": [{"required": ["p"]}, {"required": ["q"]}],
        "properties": {"p": {"type": "string"}, "q": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"one": one, "n": {"x-kubernetes-int-or-string": true},
        "none": {"type": "object"}, "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}}});
    bed.post(CRDS, crd("foos", "Foo", schema)).await;
    let foo =
        |spec: Value| json!({"apiVersion": "wire.example/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": spec});
    let wrong = [
        (
            json!({"one": {"p": "1", "q": "2"}}),
            "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (json!({"set": ["a", "b", "a"]}), "spec.set[2]: Duplicate value: \"a\""),
        (
            json!({"n": true}),
            "spec.n: Invalid value: \"boolean\": spec.n in body must be of type integer,string: \"boolean\"",
        ),
    ];
    for (spec, why) in wrong {
        let a = bed.post(FOOS, foo(spec)).await;
        assert!(a.code == 422 && a.message().contains(why), "{}", a.text);
    }
    let a = bed.post(FOOS, foo(json!({"one": {"p": "1"}, "n": "50%", "none": {"lost": 1}}))).await;
    assert_eq!((a.code, &a.body["spec"]), (201, &json!({"one": {"p": "1"}, "n": "50%", "none": {}})), "{}", a.text);
}
