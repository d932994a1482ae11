//! Schemas of custom kinds: they are structural, and use nothing that the server does not know. Grade: source (the
//! structural schemas and the validation of apiextensions-apiserver).
use serde_json::{Value, json};

use super::rules::forbidden;
use super::{cel, custom, node};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
const EITHER: &str = "x-kubernetes-int-or-string";
const WHOLE: &str = "x-kubernetes-embedded-resource";
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where in a schema something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks the schema of a version.
pub(super) fn check(schema: &Value, at: &str, out: &mut Vec<Cause>) {
    let before = out.len();
    structural(schema, at, Level::Root, out);
    if out.len() == before {
        defaults(schema, at, out);
    }
    plain(schema, at, out);
    if out.len() == before {
        compiles(schema, at, true, out);
    }
}

/// The schemas right below one, with their places and levels.
fn below<'a>(schema: &'a Value, at: &str) -> Vec<(&'a Value, String, Level)> {
    let mut all = Vec::new();
    if schema["items"].is_object() {
        all.push((&schema["items"], format!("{at}.items"), Level::Item));
    }
    for (k, v) in schema["properties"].as_object().into_iter().flatten() {
        all.push((v, format!("{at}.properties[{k}]"), Level::Field));
    }
    if schema["additionalProperties"].is_object() {
        all.push((&schema["additionalProperties"], format!("{at}.additionalProperties"), Level::Field));
    }
    all
}

/// Every place of a schema has a type, unless it says that anything may stand there.
fn structural(schema: &Value, at: &str, level: Level, out: &mut Vec<Cause>) {
    let sort = s(schema, "/type");
    let at_type = format!("{at}.type");
    if sort == "array" && schema["items"].is_null() {
        out.push(Cause::required(format!("{at}.items"), "must be specified"));
    }
    below(schema, at).into_iter().for_each(|(v, at, level)| structural(v, &at, level, out));
    let mapped = !schema["additionalProperties"].is_null();
    if mapped && level == Level::Root {
        out.push(forbidden(&format!("{at}.additionalProperties"), "must not be used at the root"));
    }
    if schema[EITHER] == true {
        for k in [OPEN, WHOLE].into_iter().filter(|k| schema[*k] == true) {
            let why = format!("must be false if {EITHER} is true");
            out.push(Cause::invalid(format!("{at}.{k}"), &true.into(), &why));
        }
    }
    logic(schema, at, out);
    if schema[WHOLE] == true && sort != "object" {
        let why = format!("must be object if {WHOLE} is true");
        out.push(if sort.is_empty() {
            Cause::required(at_type, &why)
        } else {
            Cause::invalid(at_type, &sort.into(), &why)
        });
    } else if sort.is_empty() && schema[EITHER] != true && schema[OPEN] != true && schema["$ref"].is_null() {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(Cause::required(at_type, why));
    } else if level == Level::Root && sort != "object" && !sort.is_empty() {
        out.push(Cause::invalid(at_type, &sort.into(), "must be object at the root"));
    }
    if schema[WHOLE] == true {
        if mapped {
            let why = format!("must not be used if {WHOLE} is set");
            out.push(forbidden(&format!("{at}.additionalProperties"), &why));
        }
        if schema[OPEN] != true && schema["properties"].as_object().is_none_or(serde_json::Map::is_empty) {
            let why = format!("must not be empty if {WHOLE} is true without {OPEN}");
            out.push(Cause::required(format!("{at}.properties"), &why));
        }
    }
    if level == Level::Root || schema[WHOLE] == true {
        identity(schema, at, level, out);
    }
}

/// What a schema may say of an object's kind and metadata.
fn identity(schema: &Value, at: &str, level: Level, out: &mut Vec<Cause>) {
    for f in ["kind", "apiVersion"] {
        let sort = &schema["properties"][f]["type"];
        if schema["properties"][f].is_object() && sort != "string" {
            out.push(Cause::invalid(format!("{at}.properties[{f}].type"), sort, "must be string"));
        }
    }
    let Some(m) = schema["properties"]["metadata"].as_object() else { return };
    let at = format!("{at}.properties[metadata]");
    if m.get("type").is_none_or(|t| t != "object") {
        let sort = m.get("type").and_then(Value::as_str).unwrap_or_default();
        out.push(Cause::invalid(format!("{at}.type"), &sort.into(), "must be object"));
    }
    let names = |p: &Value| p.as_object().is_none_or(|p| p.keys().all(|k| k == "name" || k == "generateName"));
    let only = m.iter().all(|(k, v)| match k.as_str() {
        "type" | "default" => true,
        "properties" => names(v),
        _ => false,
    });
    if level == Level::Root && !only {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        out.push(forbidden(&at, why));
    }
}

/// Below `allOf`, `anyOf`, `oneOf` and `not` there are only values: what a place is stands outside.
fn logic(schema: &Value, at: &str, out: &mut Vec<Cause>) {
    if let Some(p) = schema["pattern"].as_str().filter(|p| regex::Regex::new(p).is_err()) {
        let why = format!("must be a valid regular expression, but isn't: error parsing regexp: {}", unreadable(p));
        out.push(Cause::invalid(format!("{at}.pattern"), &p.into(), &why));
    }
    let either = schema[EITHER] == true;
    let mut all: Vec<(&Value, String)> = Vec::new();
    for list in ["allOf", "anyOf", "oneOf"] {
        let parts = arr(schema, &format!("/{list}")).iter().enumerate();
        all.extend(parts.map(|(i, v)| (v, format!("{at}.{list}[{i}]"))));
    }
    if schema["not"].is_object() {
        all.push((&schema["not"], format!("{at}.not")));
    }
    for (v, place) in all {
        value(v, &place, either, out);
        for k in v["properties"].as_object().into_iter().flat_map(|m| m.keys()) {
            let declared = schema["properties"].get(k).is_some() || schema["additionalProperties"].is_object();
            if !declared && schema[OPEN] != true && place.matches("Of[").count() == 1 {
                let why = format!("because it is defined in {place}.properties[{k}]");
                out.push(Cause::required(format!("{at}.properties[{k}]"), &why));
            }
        }
    }
}

fn value(v: &Value, at: &str, either: bool, out: &mut Vec<Cause>) {
    let mut say =
        |k: &str, why: &str| out.push(forbidden(&format!("{at}.{k}"), &format!("must be {why} to be structural")));
    for (k, why) in [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
    ] {
        // integers or texts say so themselves
        let own = k == "type" && either;
        if !(own || v[k].is_null()) {
            say(k, why);
        }
    }
    for k in ["nullable", OPEN, WHOLE, EITHER].into_iter().filter(|k| v[*k] == true) {
        say(k, "false");
    }
    for (k, why) in [
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
        ("x-kubernetes-validations", "empty"),
    ] {
        if !v[k].is_null() {
            say(k, why);
        }
    }
    for (k, below) in v["properties"].as_object().into_iter().flatten() {
        value(below, &format!("{at}.properties[{k}]"), either, out);
    }
    if v["items"].is_object() {
        value(&v["items"], &format!("{at}.items"), either, out);
    }
    logic(v, at, out);
}

/// Why a pattern cannot be read, as Go says it, for what is common.
fn unreadable(p: &str) -> String {
    match p {
        p if p.matches('[').count() > p.matches(']').count() => {
            format!("missing closing ]: `{}`", &p[p.rfind('[').unwrap_or(0)..])
        }
        p if p.matches('(').count() > p.matches(')').count() => format!("missing closing ): `{p}`"),
        p if p.matches(')').count() > p.matches('(').count() => format!("unexpected ): `{p}`"),
        p if p.starts_with(['*', '+', '?']) => format!("missing argument to repetition operator: `{}`", &p[..1]),
        p => format!("invalid or unsupported Perl syntax: `{p}`"),
    }
}

/// Defaults are valid themselves.
fn defaults(schema: &Value, at: &str, out: &mut Vec<Cause>) {
    if !schema["default"].is_null() {
        custom::value(node::Node::new(schema), &format!("{at}.default"), &schema["default"], out);
    }
    below(schema, at).into_iter().for_each(|(v, at, _)| defaults(v, &at, out));
}

/// Words that a schema may use, and how.
fn plain(schema: &Value, at: &str, out: &mut Vec<Cause>) {
    let sort = s(schema, "/type");
    let mut say = |k: &str, why: &str| out.push(forbidden(&format!("{at}.{k}"), why));
    if sort == "null" {
        say("type", "type cannot be set to null, use nullable as an alternative");
    }
    for k in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if !schema[k].is_null() {
            say(k, &format!("{k} is not supported"));
        }
    }
    if schema["items"].is_array() {
        say("items", "items must be a schema object and not an array");
    }
    if schema["uniqueItems"] == true {
        say("uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    let some = schema["properties"].as_object().is_some_and(|p| !p.is_empty());
    if some && (schema["additionalProperties"].is_object() || schema["additionalProperties"] == false) {
        say("additionalProperties", "additionalProperties and properties are mutual exclusive");
    }
    if !sort.is_empty() && sort != "null" && !TYPES.contains(&sort) {
        let known: Vec<String> = TYPES.iter().map(|t| (*t).to_owned()).collect();
        out.push(Cause::unsupported(format!("{at}.type"), &sort.into(), &known));
    }
    if schema[OPEN] == false {
        out.push(Cause::invalid(format!("{at}.{OPEN}"), &false.into(), "must be true or undefined"));
    }
    kinds_of(schema, at, "x-kubernetes-map-type", "object", &["atomic", "granular"], out);
    kinds_of(schema, at, "x-kubernetes-list-type", "array", &["atomic", "set", "map"], out);
    listed(schema, at, out);
    rules(schema, at, out);
    below(schema, at).into_iter().for_each(|(v, at, _)| plain(v, &at, out));
}

fn kinds_of(schema: &Value, at: &str, key: &str, want: &str, known: &[&str], out: &mut Vec<Cause>) {
    let (Some(is), sort) = (schema[key].as_str(), s(schema, "/type")) else { return };
    if sort != want {
        let why = format!("must be {want} if {key} is specified");
        out.push(match sort {
            "" => Cause::required(format!("{at}.type"), &why),
            _ => Cause::invalid(format!("{at}.type"), &sort.into(), &why),
        });
    }
    if !known.contains(&is) {
        let list: Vec<String> = known.iter().map(|k| (*k).to_owned()).collect();
        out.push(Cause::unsupported(format!("{at}.{key}"), &is.into(), &list));
    }
}

/// Lists that are sets or maps.
fn listed(schema: &Value, at: &str, out: &mut Vec<Cause>) {
    let (list, keys) = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys");
    let (is, items) = (s(schema, &format!("/{list}")), &schema["items"]);
    let names = arr(schema, &format!("/{keys}"));
    let loose = items["x-kubernetes-map-type"] != "atomic";
    if is == "set" && items["type"] == "object" && loose {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let shown = &items["x-kubernetes-list-type"];
        out.push(Cause::invalid(format!("{at}.items.x-kubernetes-map-type"), shown, why));
    }
    if !names.is_empty() && is != "map" {
        let (place, why) = (format!("{at}.{list}"), format!("must be map if {keys} is non-empty"));
        out.push(if is.is_empty() { Cause::required(place, &why) } else { Cause::invalid(place, &is.into(), &why) });
    }
    if is != "map" {
        return;
    }
    if names.is_empty() {
        out.push(Cause::required(format!("{at}.{keys}"), &format!("must not be empty if {list} is map")));
    }
    if items.is_null() {
        out.push(Cause::required(format!("{at}.items"), &format!("must have a schema if {list} is map")));
    } else if items["type"] != "object" {
        let why = format!("must be object if parent array's {list} is map");
        out.push(Cause::invalid(format!("{at}.items.type"), &items["type"], &why));
    } else {
        for k in names.iter().filter_map(Value::as_str) {
            let of = &items["properties"][k];
            let place = format!("{at}.items.properties[{k}]");
            if !of.is_object() {
                let why = "entries must all be names of item properties";
                out.push(Cause::invalid(format!("{at}.{keys}"), &schema[keys], why));
            } else if matches!(s(of, "/type"), "array" | "object") {
                let why = format!("must be a scalar type if parent array's {list} is map");
                out.push(Cause::invalid(format!("{place}.type"), &items["type"], &why));
            } else if of["default"].is_null() && !arr(items, "/required").iter().any(|r| r == k) {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                out.push(Cause::required(format!("{place}.default"), why));
            }
        }
    }
}

/// What belongs to a rule beside the rule.
fn rules(schema: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, r) in arr(schema, "/x-kubernetes-validations").iter().enumerate() {
        let at = |f: &str| format!("{at}.x-kubernetes-validations[{i}].{f}");
        let (rule, message) = (s(r, "/rule"), s(r, "/message"));
        if rule.trim().is_empty() {
            out.push(Cause::required(at("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            out.push(Cause::invalid(at("message"), &message.into(), "must be non-empty if specified"));
        } else if message.trim().contains('\n') {
            out.push(Cause::invalid(at("message"), &message.into(), "must not contain line breaks"));
        } else if rule.trim().contains('\n') && message.is_empty() {
            out.push(Cause::required(at("message"), "message must be specified if rule contains line breaks"));
        }
        let compared = cel::parse(rule).is_ok_and(|e| cel::compares(&e));
        if r["optionalOldSelf"] == true && !rule.trim().is_empty() && !compared {
            let why = "may not be set if oldSelf is not used in rule";
            out.push(Cause::invalid(at("optionalOldSelf"), &true.into(), why));
        }
        if let Some(reason) = r["reason"].as_str().filter(|x| !REASONS.contains(x)) {
            let known: Vec<String> = REASONS.iter().map(|k| (*k).to_owned()).collect();
            out.push(Cause::unsupported(at("reason"), &reason.into(), &known));
        }
        let path = s(r, "/fieldPath");
        if path.is_empty() {
            continue;
        }
        let mut found = Some(schema);
        for part in path.trim_start_matches('.').split(['.', '[']) {
            let named = part.trim_end_matches(']').trim_matches('\'');
            found = found.and_then(|f| f["properties"].get(named).or_else(|| f.get("additionalProperties")));
        }
        if path.trim().is_empty() {
            out.push(Cause::invalid(at("fieldPath"), &path.into(), "must be non-empty if specified"));
        } else if found.is_none() {
            out.push(Cause::invalid(at("fieldPath"), &path.into(), "must be a valid path"));
        }
    }
}

/// Rules have to compile.
fn compiles(schema: &Value, at: &str, root: bool, out: &mut Vec<Cause>) {
    for (i, r) in arr(schema, "/x-kubernetes-validations").iter().enumerate() {
        let text = |k: &str| r[k].as_str().unwrap_or_default();
        let shown = json!({"Rule": text("rule"), "Message": text("message"),
                "MessageExpression": text("messageExpression"), "Reason": r["reason"], "FieldPath": text("fieldPath"),
                "OptionalOldSelf": r["optionalOldSelf"]});
        if let Some(why) = cel::trouble(text("rule"), schema, root) {
            out.push(Cause::invalid(format!("{at}.x-kubernetes-validations[{i}].rule"), &shown, &why));
        } else if !text("messageExpression").is_empty()
            && cel::wrong(text("messageExpression"), &["self", "oldSelf"], Some("string"))
                .is_some_and(|w| w.starts_with("must evaluate"))
        {
            let why = "messageExpression must evaluate to a string";
            out.push(Cause::invalid(format!("{at}.x-kubernetes-validations[{i}].messageExpression"), &shown, why));
        }
    }
    below(schema, at).into_iter().for_each(|(v, at, _)| compiles(v, &at, false, out));
}
