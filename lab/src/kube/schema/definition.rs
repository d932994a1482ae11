//! CustomResourceDefinitions: the names that they get, and what makes one invalid. Grade: source (the naming controller and
//! the validation of apiextensions-apiserver).
use serde_json::{Map, Value};

use super::rules::{duplicate, forbidden, immutable, one_of};
use super::{names, structural};
use crate::kube::store::write::set_condition;
use crate::kube::store::{Cause, Store, meta};
use crate::kube::text::{arr, s};

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const APPROVED: &str = "api-approved.kubernetes.io";
const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Gives a definition the names that no other of its group has, and says how that went.
pub fn settle(store: &Store, obj: &mut Value) {
    let now = meta::time(store.now_ms());
    let (mut resources, mut kinds) = (Vec::new(), Vec::new());
    for other in store.all(CRDS, "") {
        if other["spec"]["group"] != obj["spec"]["group"] || meta::name(other) == meta::name(obj) {
            continue;
        }
        let taken = &other["status"]["acceptedNames"];
        resources.extend([taken["plural"].clone(), taken["singular"].clone()]);
        resources.extend(arr(taken, "/shortNames").iter().cloned());
        kinds.extend([taken["kind"].clone(), taken["listKind"].clone()]);
    }
    let asked = obj["spec"]["names"].clone();
    let had = obj["status"]["acceptedNames"].clone();
    let mut accepted = had.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    let in_use = |n: &Value| format!("{n} is already in use");
    let mut one = |field: &str, reason: &'static str, taken: &[Value], accepted: &mut Map<String, Value>| {
        if asked[field] != had[field] && taken.contains(&asked[field]) {
            conflict = Some((reason, in_use(&asked[field])));
        } else {
            accepted.insert(field.to_owned(), asked[field].clone());
        }
    };
    one("plural", "PluralConflict", &resources, &mut accepted);
    one("singular", "SingularConflict", &resources, &mut accepted);
    let short: Vec<String> = arr(&asked, "/shortNames")
        .iter()
        .filter(|n| !arr(&had, "/shortNames").contains(n) && resources.contains(n))
        .map(in_use)
        .collect();
    if short.is_empty() {
        accepted.insert("shortNames".to_owned(), asked["shortNames"].clone());
    }
    one("kind", "KindConflict", &kinds, &mut accepted);
    one("listKind", "ListKindConflict", &kinds, &mut accepted);
    match short.as_slice() {
        [] => {}
        [one] => conflict = conflict.or(Some(("ShortNamesConflict", one.clone()))),
        many => conflict = conflict.or(Some(("ShortNamesConflict", format!("[{}]", many.join(", "))))),
    }
    accepted.insert("categories".to_owned(), asked["categories"].clone());
    accepted.retain(|_, v| !v.is_null());
    let stored = arr(obj, "/spec/versions").iter().find(|v| v["storage"] == true).map(|v| v["name"].clone());
    let established =
        arr(obj, "/status/conditions").iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    // whoever writes the status alone says in which versions objects are kept
    let before = store.get(CRDS, "", s(obj, "/metadata/name"));
    let told = !arr(obj, "/status/storedVersions").is_empty() && before.is_some_and(|b| b["spec"] == obj["spec"]);
    let status = &mut obj["status"];
    match &conflict {
        None => set_condition(status, &now, ("NamesAccepted", "True", "NoConflicts", "no conflicts found")),
        Some((reason, why)) => set_condition(status, &now, ("NamesAccepted", "False", reason, why)),
    }
    if !established {
        let how = match conflict {
            None => ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
            Some(_) => ("Established", "False", "NotAccepted", "not all names are accepted"),
        };
        set_condition(status, &now, how);
    }
    status["acceptedNames"] = accepted.into();
    let mut versions = arr(status, "/storedVersions").to_vec();
    versions.extend(stored.filter(|v| !told && !versions.contains(v)));
    status["storedVersions"] = versions.into();
}

/// The versions as the server's own struct prints them; what one version alone says is said of all.
fn inside(spec: &Value) -> Value {
    let Some(list) = spec["versions"].as_array() else { return Value::Null };
    let alone = list.len() == 1;
    let shown = |v: &Value| {
        let part = |f: &str| if alone { Value::Null } else { v[f].clone() };
        let schema = match part("schema") {
            Value::Null => Value::Null,
            _ => serde_json::json!({"OpenAPIV3Schema": null}),
        };
        serde_json::json!({"Name": v["name"], "Served": v["served"] == true, "Storage": v["storage"] == true,
            "Deprecated": v["deprecated"] == true, "DeprecationWarning": v["deprecationWarning"], "Schema": schema,
            "Subresources": part("subresources"), "AdditionalPrinterColumns": part("additionalPrinterColumns"),
            "SelectableFields": part("selectableFields")})
    };
    list.iter().map(shown).collect()
}

/// The texts of a rule about names, as one.
fn named(at: &str, text: &str, judge: names::Judge, before: &str, out: &mut Vec<Cause>) {
    let wrong = judge(text);
    if !wrong.is_empty() && !text.is_empty() {
        out.push(Cause::invalid(at, &text.into(), &format!("{before}{}", wrong.join(","))));
    }
}

/// Checks a definition; `old` is what it was.
pub(super) fn check(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    let group = s(spec, "/group");
    if group.is_empty() {
        out.push(Cause::required("spec.group", ""));
    }
    named("spec.group", group, names::subdomain, "", out);
    if !group.is_empty() && names::subdomain(group).is_empty() && !group.contains('.') {
        out.push(Cause::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    match s(spec, "/scope") {
        "" => out.push(Cause::required("spec.scope", "")),
        _ => one_of("spec.scope".into(), &spec["scope"], &["Cluster", "Namespaced"], out),
    }
    let list = arr(spec, "/versions");
    for (i, v) in list.iter().enumerate() {
        named(&format!("spec.versions[{i}].name"), s(v, "/name"), names::label_1035, "", out);
        // one version alone is looked at as the version of all
        version(v, &format!("spec.versions[{i}]"), list.len() == 1, out);
    }
    if list.iter().enumerate().any(|(i, v)| list[..i].iter().any(|o| o["name"] == v["name"])) {
        out.push(Cause::invalid("spec.versions", &inside(spec), "must contain unique version names"));
    }
    if list.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        out.push(Cause::invalid("spec.versions", &inside(spec), why));
    }
    if let [one] = list {
        named("spec.version", s(one, "/name"), names::label_1035, "", out);
    }
    of_names(&spec["names"], out);
    conversion(&spec["conversion"], out);
    if let Some(old) = old {
        changed(obj, old, out);
    }
    approval(obj, old, out);
    if spec["preserveUnknownFields"] == true && old.is_none_or(|o| o["spec"]["preserveUnknownFields"] != true) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        out.push(Cause::invalid("spec.preserveUnknownFields", &true.into(), why));
    }
}

fn of_names(n: &Value, out: &mut Vec<Cause>) {
    for f in ["plural", "singular", "kind", "listKind"].into_iter().filter(|f| s(n, &format!("/{f}")).is_empty()) {
        out.push(Cause::required(format!("spec.names.{f}"), ""));
    }
    for f in ["plural", "singular"] {
        named(&format!("spec.names.{f}"), s(n, &format!("/{f}")), names::label_1035, "", out);
    }
    for f in ["kind", "listKind"] {
        let text = s(n, &format!("/{f}"));
        let wrong = names::label_1035(&text.to_lowercase());
        if !text.is_empty() && !wrong.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            out.push(Cause::invalid(format!("spec.names.{f}"), &text.into(), &why));
        }
    }
    for list in ["shortNames", "categories"] {
        for (i, x) in arr(n, &format!("/{list}")).iter().enumerate() {
            named(&format!("spec.names.{list}[{i}]"), x.as_str().unwrap_or_default(), names::label_1035, "", out);
        }
    }
    if n["kind"] == n["listKind"] && n["kind"].is_string() {
        out.push(Cause::invalid("spec.names.listKind", &n["listKind"], "kind and listKind may not be the same"));
    }
}

fn version(v: &Value, at: &str, alone: bool, out: &mut Vec<Cause>) {
    let said = s(v, "/deprecationWarning");
    if said.len() > 256 {
        let why = "must be <= 256 characters long";
        out.push(Cause::invalid(format!("{at}.deprecationWarning"), &said.into(), why));
    }
    if v["deprecated"] != true && v["deprecationWarning"].is_string() {
        let why = "can only be set for deprecated versions";
        out.push(Cause::invalid(format!("{at}.deprecationWarning"), &v["deprecationWarning"], why));
    }
    let at = if alone { "spec" } else { at };
    let schema = &v["schema"]["openAPIV3Schema"];
    if schema.is_object() {
        let place = if alone { "spec.validation".to_owned() } else { format!("{at}.schema") };
        structural::check(schema, &format!("{place}.openAPIV3Schema"), out);
    } else {
        let place = if alone { "spec.versions[0]" } else { at };
        let why = "";
        out.push(Cause::required(format!("{place}.schema.openAPIV3Schema"), why));
    }
    scale(&v["subresources"]["scale"], &format!("{at}.subresources"), out);
    for (i, c) in arr(v, "/additionalPrinterColumns").iter().enumerate() {
        column(c, &format!("{at}.additionalPrinterColumns[{i}]"), out);
    }
    selectable(v, schema, at, out);
}

fn simple(at: &str, path: &str, below: &[&str], why: &str, out: &mut Vec<Cause>) {
    if !path.starts_with('.') {
        out.push(Cause::invalid(at, &path.into(), "must be a simple json path starting with ."));
    } else if !below.is_empty() && !below.iter().any(|b| path.starts_with(b)) {
        out.push(Cause::invalid(at, &path.into(), why));
    }
}

fn scale(of: &Value, at: &str, out: &mut Vec<Cause>) {
    for (field, below, why) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let path = s(of, &format!("/{field}"));
        if path.is_empty() && of.is_object() && field != "labelSelectorPath" {
            out.push(Cause::required(format!("{at}.scale.{field}"), ""));
        } else if !path.is_empty() {
            simple(&format!("{at}.scale.{field}"), path, below, why, out);
        }
    }
}

fn column(c: &Value, at: &str, out: &mut Vec<Cause>) {
    let (sort, format) = (s(c, "/type"), s(c, "/format"));
    for f in ["name", "type"].into_iter().filter(|f| s(c, &format!("/{f}")).is_empty()) {
        out.push(Cause::required(format!("{at}.{f}"), ""));
    }
    if !sort.is_empty() && !TYPES.contains(&sort) {
        out.push(Cause::invalid(format!("{at}.type"), &sort.into(), &format!("must be one of {}", TYPES.join(","))));
    }
    if !format.is_empty() && !FORMATS.contains(&format) {
        let why = format!("must be one of {}", FORMATS.join(","));
        out.push(Cause::invalid(format!("{at}.format"), &format.into(), &why));
    }
    match s(c, "/jsonPath") {
        "" => out.push(Cause::required(format!("{at}.JSONPath"), "")),
        path => simple(&format!("{at}.JSONPath"), path, &[], "", out),
    }
}

fn selectable(v: &Value, schema: &Value, at: &str, out: &mut Vec<Cause>) {
    let list = arr(v, "/selectableFields");
    for (i, f) in list.iter().enumerate() {
        let at = format!("{at}.selectableFields[{i}].jsonPath");
        let path = s(f, "/jsonPath");
        let mut found = schema;
        for part in path.trim_start_matches('.').split('.') {
            found = &found["properties"][part];
        }
        if path.is_empty() {
            out.push(Cause::required(at.as_str(), ""));
        } else if !found.is_object() {
            let why = "is an invalid path: does not refer to a valid field";
            out.push(Cause::invalid(at.as_str(), &path.into(), why));
        } else if !matches!(s(found, "/type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            out.push(Cause::invalid(at.as_str(), &path.into(), why));
        }
        if list[..i].contains(f) {
            out.push(duplicate(at, &path.into()));
        }
    }
}

fn conversion(c: &Value, out: &mut Vec<Cause>) {
    let at = "spec.conversion";
    one_of(format!("{at}.strategy"), &c["strategy"], &["None", "Webhook"], out);
    let hook = &c["webhook"];
    if c["strategy"] != "Webhook" {
        if hook.is_object() {
            let why = "should not be set when strategy is not set to Webhook";
            let given =
                [("clientConfig", "webhookClientConfig"), ("conversionReviewVersions", "conversionReviewVersions")];
            for (_, place) in given.iter().filter(|(f, _)| !hook[*f].is_null()) {
                out.push(forbidden(&format!("{at}.{place}"), why));
            }
        }
        return;
    }
    let client = &hook["clientConfig"];
    if !client.is_object() {
        out.push(Cause::required(format!("{at}.webhookClientConfig"), "required when strategy is set to Webhook"));
    } else if client["url"].is_string() == client["service"].is_object() {
        out.push(Cause::required(format!("{at}.webhookClientConfig"), "exactly one of url or service is required"));
    } else if let Some(url) = client["url"].as_str() {
        crate::kube::dynamic::address(url, &format!("{at}.webhookClientConfig.url"), out);
    }
    let reviews = arr(hook, "/conversionReviewVersions");
    if reviews.is_empty() {
        out.push(Cause::required(format!("{at}.conversionReviewVersions"), ""));
    } else if !reviews.iter().any(|v| v == "v1" || v == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        out.push(Cause::invalid(format!("{at}.conversionReviewVersions"), &hook["conversionReviewVersions"], why));
    }
}

/// What stays as it is, and the versions that objects are still kept in.
fn changed(obj: &Value, old: &Value, out: &mut Vec<Cause>) {
    let (spec, was) = (&obj["spec"], &old["spec"]);
    if arr(old, "/status/conditions").iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
        immutable("spec.scope", &spec["scope"], Some(&was["scope"]), out);
        immutable("spec.names.kind", &spec["names"]["kind"], Some(&was["names"]["kind"]), out);
    }
    immutable("spec.group", &spec["group"], Some(&was["group"]), out);
    immutable("spec.names.plural", &spec["names"]["plural"], Some(&was["names"]["plural"]), out);
    for (i, v) in arr(obj, "/status/storedVersions").iter().enumerate().filter(|_| spec != was) {
        if !arr(spec, "/versions").iter().any(|x| x["name"] == *v) {
            let name = v.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            out.push(Cause::invalid(format!("status.storedVersions[{i}]"), v, &why));
        }
    }
}

/// Groups of the community need an approval.
fn approval(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let group = s(obj, "/spec/group");
    let community = ["k8s.io", "kubernetes.io"].iter().any(|g| group == *g || group.ends_with(&format!(".{g}")));
    let said = |o: &Value| o["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default().to_owned();
    let now = said(obj);
    if !community || old.is_some_and(|o| said(o).is_empty() == now.is_empty()) {
        return;
    }
    let at = format!("metadata.annotations[{APPROVED}]");
    if now.is_empty() {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        out.push(Cause::required(at, why));
    } else if !now.starts_with("unapproved") && !now.starts_with("https://") {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111";
        out.push(Cause::invalid(at, &now.as_str().into(), why));
    }
}

/// What clients of a deprecated version are told.
#[must_use]
pub fn outdated(spec: &Value, v: &Value) -> Option<String> {
    if v["deprecated"] != true {
        return None;
    }
    if let Some(own) = v["deprecationWarning"].as_str() {
        return Some(own.to_owned());
    }
    let (group, kind) = (s(spec, "/group"), s(spec, "/names/kind"));
    let told = format!("{group}/{} {kind} is deprecated", s(v, "/name"));
    let newer = arr(spec, "/versions")
        .iter()
        .filter(|o| o["served"] == true && o["deprecated"] != true)
        .map(|o| s(o, "/name"))
        .filter(|n| age(n) > age(s(v, "/name")))
        .max_by_key(|n| age(n));
    Some(newer.map_or_else(|| told.clone(), |n| format!("{told}; use {group}/{n} {kind}")))
}

/// How new a version is by its name: `v2` before `v1` before `v1beta2` before `v1alpha1`.
#[must_use]
pub fn age(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..end].parse() else { return (0, 0, 0) };
    let minor = |t: &str| t.parse().unwrap_or(0);
    match &rest[end..] {
        "" => (3, major, 0),
        t if t.starts_with("beta") => (2, major, minor(&t[4..])),
        t if t.starts_with("alpha") => (1, major, minor(&t[5..])),
        _ => (0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outdated_versions_name_the_newest() {
        let spec = json!({"group": "x.y", "names": {"kind": "Foo"}, "versions": [
            {"name": "v1", "served": true}, {"name": "v1beta1", "served": true, "deprecated": true}, {"name": "v2", "served": true}]});
        let said = outdated(&spec, &spec["versions"][1]);
        assert_eq!(said.as_deref(), Some("x.y/v1beta1 Foo is deprecated; use x.y/v2 Foo"));
        assert_eq!(outdated(&spec, &spec["versions"][0]), None);
    }
}
