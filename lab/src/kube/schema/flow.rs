//! Rules of flow schemas and priority levels. Grade: source (pkg/apis/flowcontrol/validation).
use serde_json::Value;

use super::names;
use super::rules::{duplicate, forbidden, words};
use super::validate::judged;
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

/// Verbs that a rule may name.
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// Kinds of subjects with the field that tells of each, in the order in which the others are forbidden.
const SUBJECTS: &[(&str, &str)] = &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

/// What hashing may take of a hand of queues, in bits.
const BITS: f64 = 60.0;

/// Checks a FlowSchema.
pub(super) fn schema(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    let order = &spec["matchingPrecedence"];
    match order.as_i64().unwrap_or(0) {
        n if n <= 0 => out.push(Cause::invalid("spec.matchingPrecedence", order, "must be a positive value")),
        n if n > 10_000 => {
            out.push(Cause::invalid("spec.matchingPrecedence", order, "must not be greater than 10000"));
        }
        1 if s(obj, "/metadata/name") != "exempt" => {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            out.push(Cause::invalid("spec.matchingPrecedence", order, why));
        }
        _ => {}
    }
    if let Some(way) = spec.get("distinguisherMethod").filter(|w| w.is_object()) {
        let of = s(way, "/type");
        if !matches!(of, "ByNamespace" | "ByUser") {
            let shown = serde_json::json!({ "Type": of });
            let known = words(&["ByNamespace", "ByUser"]);
            out.push(Cause::unsupported("spec.distinguisherMethod.type", &shown, &known));
        }
    }
    match s(spec, "/priorityLevelConfiguration/name") {
        "" => out.push(Cause::required("spec.priorityLevelConfiguration.name", "must reference a priority level")),
        name => judged("spec.priorityLevelConfiguration.name", name, names::subdomain, out),
    }
    for (i, r) in arr(spec, "/rules").iter().enumerate() {
        rule(r, &format!("spec.rules[{i}]"), out);
    }
    conditions(&obj["status"], out);
}

fn rule(r: &Value, at: &str, out: &mut Vec<Cause>) {
    let subjects = arr(r, "/subjects");
    if subjects.is_empty() {
        out.push(Cause::required(format!("{at}.subjects"), "subjects must contain at least one value"));
    }
    for (i, of) in subjects.iter().enumerate() {
        subject(of, &format!("{at}.subjects[{i}]"), out);
    }
    let (things, pages) = (arr(r, "/resourceRules"), arr(r, "/nonResourceRules"));
    if things.is_empty() && pages.is_empty() {
        out.push(Cause::required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for (i, r) in things.iter().enumerate() {
        resources(r, &format!("{at}.resourceRules[{i}]"), out);
    }
    for (i, r) in pages.iter().enumerate() {
        let at = format!("{at}.nonResourceRules[{i}]");
        verbs(r, &at, out);
        let why = "nonResourceURLs must contain at least one value";
        if filled(r, "nonResourceURLs", why, "non-resource URLs", &at, out) {
            for (j, page) in arr(r, "/nonResourceURLs").iter().enumerate() {
                url(page, format!("{at}.nonResourceURLs[{j}]"), out);
            }
        }
    }
}

fn subject(of: &Value, at: &str, out: &mut Vec<Cause>) {
    let kind = s(of, "/kind");
    let Some((_, own)) = SUBJECTS.iter().find(|x| x.0 == kind) else {
        let known = words(&["Group", "ServiceAccount", "User"]);
        out.push(Cause::unsupported(format!("{at}.kind"), &kind.into(), &known));
        return;
    };
    let (told, at_own) = (&of[*own], format!("{at}.{own}"));
    if told.is_object() {
        match s(told, "/name") {
            "" => out.push(Cause::required(format!("{at_own}.name"), "")),
            name if kind == "ServiceAccount" && name != "*" => {
                judged(format!("{at_own}.name"), name, names::subdomain, out);
            }
            _ => {}
        }
        if kind == "ServiceAccount" {
            match s(told, "/namespace") {
                "" => out
                    .push(Cause::required(format!("{at_own}.namespace"), "must specify namespace for service account")),
                ns => judged(format!("{at_own}.namespace"), ns, names::label, out),
            }
        }
    } else {
        out.push(Cause::required(at_own, &format!("{own} is required when subject kind is '{kind}'")));
    }
    for (other, field) in SUBJECTS.iter().filter(|x| x.0 != kind && of[x.1].is_object()) {
        let why = format!("{field} is forbidden when subject kind is not '{other}'");
        out.push(forbidden(&format!("{at}.{field}"), &why));
    }
}

/// Whether a list has something in it that is to be looked at one by one: not nothing, and not `*`.
fn filled(r: &Value, field: &str, none: &str, others: &str, at: &str, out: &mut Vec<Cause>) -> bool {
    let list = arr(r, &format!("/{field}"));
    let all = list.iter().any(|v| v == "*");
    if list.is_empty() {
        out.push(Cause::required(format!("{at}.{field}"), none));
    } else if all && list.len() > 1 {
        let why = format!("if '*' is present, must not specify other {others}");
        out.push(Cause::invalid(format!("{at}.{field}"), &r[field], &why));
    }
    !list.is_empty() && !all
}

fn verbs(r: &Value, at: &str, out: &mut Vec<Cause>) {
    let known = |v: &Value| v.as_str().is_some_and(|v| VERBS.contains(&v));
    let each = filled(r, "verbs", "verbs must contain at least one value", "verbs", at, out);
    if each && !arr(r, "/verbs").iter().all(known) {
        out.push(Cause::unsupported(format!("{at}.verbs"), &r["verbs"], &words(VERBS)));
    }
}

fn resources(r: &Value, at: &str, out: &mut Vec<Cause>) {
    verbs(r, at, out);
    let least = |what: &str| format!("resource rules must supply at least one {what}");
    filled(r, "apiGroups", &least("api group"), "api groups", at, out);
    filled(r, "resources", &least("resource"), "resources", at, out);
    if arr(r, "/namespaces").is_empty() && r["clusterScope"] == true {
        return;
    }
    let none = "resource rules that are not cluster scoped must supply at least one namespace";
    if filled(r, "namespaces", none, "namespaces", at, out) {
        for (i, ns) in arr(r, "/namespaces").iter().enumerate() {
            for why in names::label(ns.as_str().unwrap_or_default()) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                out.push(Cause::invalid(format!("{at}.namespaces[{i}]"), ns, &why));
            }
        }
    }
}

fn url(page: &Value, at: String, out: &mut Vec<Cause>) {
    let path = page.as_str().unwrap_or_default();
    let stars = path.matches('*').count();
    let why = match path {
        "/" => return,
        "" => "must not be empty",
        p if !p.starts_with('/') => "must start with slash",
        p if p.contains(' ') => "must not contain white-space",
        p if p.contains("//") => "must not contain double slash",
        p if stars > 1 || stars == 1 && !p.ends_with("/*") => "wildcard can only do suffix matching",
        _ => return,
    };
    out.push(Cause::invalid(at, page, why));
}

/// Checks a PriorityLevelConfiguration.
pub(super) fn level(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    let sort = &spec["type"];
    let (exempt, limited) = (&spec["exempt"], &spec["limited"]);
    if (s(obj, "/metadata/name") == "exempt") != (sort == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        out.push(Cause::invalid("spec.type", sort, why));
    }
    match sort.as_str().unwrap_or_default() {
        "Exempt" => {
            if limited.is_object() {
                out.push(forbidden("spec.limited", "must be nil if the type is not Limited"));
            }
            shares(exempt, "spec.exempt", out);
            lent(exempt, "spec.exempt", out);
        }
        "Limited" => {
            if exempt.is_object() {
                out.push(forbidden("spec.exempt", "must be nil if the type is Limited"));
            }
            if limited.is_object() {
                limits(limited, out);
            } else {
                out.push(Cause::required("spec.limited", "must not be empty when type is Limited"));
            }
        }
        other => out.push(Cause::unsupported("spec.type", &other.into(), &words(&["Exempt", "Limited"]))),
    }
    conditions(&obj["status"], out);
}

fn shares(v: &Value, at: &str, out: &mut Vec<Cause>) {
    if v["nominalConcurrencyShares"].as_i64().is_some_and(|n| n < 0) {
        let (at, n) = (format!("{at}.nominalConcurrencyShares"), &v["nominalConcurrencyShares"]);
        out.push(Cause::invalid(at, n, "must be a non-negative integer"));
    }
}

fn lent(v: &Value, at: &str, out: &mut Vec<Cause>) {
    if v["lendablePercent"].as_i64().is_some_and(|n| !(0..=100).contains(&n)) {
        let why = "must be between 0 and 100, inclusive";
        out.push(Cause::invalid(format!("{at}.lendablePercent"), &v["lendablePercent"], why));
    }
}

fn limits(limited: &Value, out: &mut Vec<Cause>) {
    shares(limited, "spec.limited", out);
    let answer = &limited["limitResponse"];
    let (at, queues) = ("spec.limited.limitResponse.queuing", &answer["queuing"]);
    match s(answer, "/type") {
        "Reject" if queues.is_object() => {
            out.push(forbidden(at, "must be nil if limited.limitResponse.type is not Limited"));
        }
        "Reject" => {}
        "Queue" if queues.is_object() => queuing(queues, at, out),
        "Queue" => out.push(Cause::required(at, "must not be empty if limited.limitResponse.type is Limited")),
        other => {
            let known = words(&["Queue", "Reject"]);
            out.push(Cause::unsupported("spec.limited.limitResponse.type", &other.into(), &known));
        }
    }
    lent(limited, "spec.limited", out);
    if limited["borrowingLimitPercent"].as_i64().is_some_and(|n| n < 0) {
        let why = "if specified, must be a non-negative integer";
        out.push(Cause::invalid("spec.limited.borrowingLimitPercent", &limited["borrowingLimitPercent"], why));
    }
}

fn queuing(q: &Value, at: &str, out: &mut Vec<Cause>) {
    let number = |f: &str| q[f].as_i64().unwrap_or(0);
    let mut wrong = |f: &str, why: &str| out.push(Cause::invalid(format!("{at}.{f}"), &q[f], why));
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        wrong("queueLengthLimit", "must be positive");
    }
    if queues <= 0 {
        wrong("queues", "must be positive");
    } else if queues > 10_000_000 {
        wrong("queues", "must not be greater than 10000000");
    }
    if hand <= 0 {
        wrong("handSize", "must be positive");
    } else if hand > queues {
        wrong("handSize", &format!("should not be greater than queues ({queues})"));
    } else if bits(queues, hand) > BITS {
        let why = format!("deckSize {queues} and handSize {hand} should not be greater than {BITS}");
        wrong("handSize", &format!("required entropy bits of {why}"));
    }
}

/// How many bits it takes to draw a hand of cards from a deck.
#[allow(clippy::cast_precision_loss)] // decks are small numbers
fn bits(deck: i64, hand: i64) -> f64 {
    (0..hand.min(deck)).map(|i| ((deck - i) as f64).log2()).sum::<f64>().ceil()
}

/// Checks the conditions of either kind: each has a type of its own.
pub(super) fn conditions(status: &Value, out: &mut Vec<Cause>) {
    let all = arr(status, "/conditions");
    for (i, c) in all.iter().enumerate() {
        let at = format!("status.conditions[{i}].type");
        let of = s(c, "/type");
        if all[..i].iter().any(|x| s(x, "/type") == of) {
            out.push(duplicate(at.clone(), &of.into()));
        }
        if of.is_empty() {
            out.push(Cause::required(at, ""));
        }
    }
}
