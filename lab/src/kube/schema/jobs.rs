//! Rules of Jobs and CronJobs: counts, failure and success policies, templates, schedules, what of them never changes.
//! Grade: source (pkg/apis/batch/validation).
use serde_json::{Value, json};

use super::defaults::tidy;
use super::rules::{domain_path, duplicate, one_of, too_long, too_many, words};
use super::validate::{judged, selector};
use super::workloads::{self, counted, mismatch};
use super::zones;
use super::{goshape, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};
use gpuhost_stdlib::wire::cron;

/// Checks the spec of a Job; one that a CronJob makes gets its selector later.
pub(super) fn check(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    generated(obj, out);
    body(spec, "spec", out);
    match spec["selector"].is_object() {
        true => selector(&spec["selector"], "spec.selector", out),
        false => out.push(Cause::required("spec.selector", "")),
    }
    mismatch(spec, "spec", out);
    if let Some(last) = spec["completions"].as_i64().filter(|n| spec["completionMode"] == "Indexed" && *n > 0) {
        let host = format!("{}-{}", s(obj, "/metadata/name"), last - 1);
        if !names::label(&host).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {host}");
            out.push(Cause::invalid("metadata.name", &obj["metadata"]["name"], &why));
        }
    }
}

/// A selector that the server makes takes the labels that it makes, and the template has them.
fn generated(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    if spec["manualSelector"] == true || !spec["selector"].is_object() {
        return;
    }
    let (uid, name) = (&obj["metadata"]["uid"], &obj["metadata"]["name"]);
    if name.as_str().is_none_or(str::is_empty) {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let mut expected = json!({});
    for (key, want) in [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ] {
        expected[key] = want.clone();
        let at = format!("spec.template.metadata.labels[{key}]");
        match labels[key].as_str() {
            None => out.push(Cause::required(
                "spec.template.metadata.labels",
                &format!("must be '{}'", want.as_str().unwrap_or_default()),
            )),
            Some(have) if want != have => {
                out.push(Cause::invalid(at, labels, &format!("must be '{}'", want.as_str().unwrap_or_default())));
            }
            Some(_) => {}
        }
    }
    let like = json!({"metadata": {"labels": expected}});
    if !crate::kube::store::Labels::from_spec(&spec["selector"]).matches(&like) {
        out.push(Cause::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
}

const INDEXES: i64 = 100_000;
const FEWER: i64 = 10_000;

fn body(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    counted(spec, at, &counts, out);
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        out.push(Cause::required(format!("{at}.backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        domain_path(&format!("{at}.managedBy"), manager, out);
        if manager.len() > 63 {
            out.push(too_long(&format!("{at}.managedBy"), 63));
        }
    }
    one_of(format!("{at}.completionMode"), &spec["completionMode"], &["NonIndexed", "Indexed"], out);
    match spec["completionMode"].as_str() {
        Some("Indexed") => indexed(spec, at, out),
        Some("NonIndexed") | None => {
            for f in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|f| !spec[*f].is_null()) {
                out.push(Cause::invalid(format!("{at}.{f}"), &spec[f], "requires indexed completion mode"));
            }
        }
        Some(_) => {}
    }
    if spec["podFailurePolicy"].is_object() {
        failure(spec, &format!("{at}.podFailurePolicy.rules"), out);
    }
    success(spec, &format!("{at}.successPolicy"), out);
    let (replaced, place) = (&spec["podReplacementPolicy"], format!("{at}.podReplacementPolicy"));
    match spec["podFailurePolicy"].is_object() {
        true => one_of(place, replaced, &["Failed"], out),
        false => one_of(place, replaced, &["Failed", "TerminatingOrFailed"], out),
    }
    workloads::pods(&spec["template"], &format!("{at}.template"), &[], out);
    let (restart, place) = (&spec["template"]["spec"]["restartPolicy"], format!("{at}.template.spec.restartPolicy"));
    match restart.as_str() {
        None | Some("" | "Always") => {
            out.push(Cause::required(place, "valid values: \"OnFailure\", \"Never\""));
        }
        Some("Never") => {}
        Some("OnFailure") if spec["podFailurePolicy"].is_null() => {}
        Some("OnFailure") => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            out.push(Cause::invalid(place, restart, why));
        }
        Some(_) => out.push(Cause::unsupported(place, restart, &words(&["OnFailure", "Never"]))),
    }
}

fn indexed(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let n = |f: &str| spec[f].as_i64();
    let most = |f: &str, limit: i64, more: &str, out: &mut Vec<Cause>| {
        if n(f).is_some_and(|x| x > limit) {
            let why = format!("must be less than or equal to {limit}{more}");
            out.push(Cause::invalid(format!("{at}.{f}"), &spec[f], &why));
        }
    };
    let Some(completions) = n("completions") else {
        out.push(Cause::required(format!("{at}.completions"), "when completion mode is Indexed"));
        return;
    };
    most("parallelism", INDEXES, " when completion mode is Indexed", out);
    if n("maxFailedIndexes").is_some_and(|m| m > completions) {
        let why = "must be less than or equal to completions";
        out.push(Cause::invalid(format!("{at}.maxFailedIndexes"), &spec["maxFailedIndexes"], why));
    }
    most("maxFailedIndexes", INDEXES, "", out);
    if completions > INDEXES && n("backoffLimitPerIndex").is_some() {
        if n("maxFailedIndexes").is_none() {
            let why = format!("must be specified when completions is above {INDEXES}");
            out.push(Cause::required(format!("{at}.maxFailedIndexes"), &why));
        }
        let more = format!(" when completions are above {INDEXES} and used with backoff limit per index");
        most("parallelism", FEWER, &more, out);
        most("maxFailedIndexes", FEWER, &more, out);
    }
}

fn listed(words: &[&str]) -> String {
    format!("valid values: [{}]", words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" "))
}

/// A word that has to be there and to be one of a list.
fn chosen(at: String, v: &Value, list: &[&str], out: &mut Vec<Cause>) {
    match v.as_str() {
        None | Some("") => out.push(Cause::required(at, &listed(list))),
        Some(_) => one_of(at, v, list, out),
    }
}

fn failure(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let rules = arr(spec, "/podFailurePolicy/rules");
    too_many(at, rules.len(), 20, out);
    let containers: Vec<&Value> = ["containers", "initContainers"]
        .iter()
        .flat_map(|l| arr(spec, &format!("/template/spec/{l}")))
        .map(|c| &c["name"])
        .collect();
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if rule["action"] == "FailIndex" {
            if spec["backoffLimitPerIndex"].is_null() {
                let why = "requires the backoffLimitPerIndex to be set";
                out.push(Cause::invalid(format!("{at}.action"), &rule["action"], why));
            }
        } else {
            chosen(format!("{at}.action"), &rule["action"], &["Count", "FailIndex", "FailJob", "Ignore"], out);
        }
        let (codes, conditions) = (&rule["onExitCodes"], arr(rule, "/onPodConditions"));
        if codes.is_object() {
            exit_codes(codes, &format!("{at}.onExitCodes"), &containers, out);
        }
        too_many(&format!("{at}.onPodConditions"), conditions.len(), 20, out);
        for (j, c) in conditions.iter().enumerate() {
            let at = format!("{at}.onPodConditions[{j}]");
            judged(format!("{at}.type"), s(c, "/type"), names::key, out);
            chosen(format!("{at}.status"), &c["status"], &["False", "True", "Unknown"], out);
        }
        match (codes.is_object(), conditions.is_empty()) {
            (true, false) => {
                out.push(Cause::plain(&at, "specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, true) => {
                out.push(Cause::plain(&at, "specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &Value, at: &str, containers: &[&Value], out: &mut Vec<Cause>) {
    chosen(format!("{at}.operator"), &codes["operator"], &["In", "NotIn"], out);
    if codes["containerName"].is_string() && !containers.contains(&&codes["containerName"]) {
        let why = "must be one of the container or initContainer names in the pod template";
        out.push(Cause::invalid(format!("{at}.containerName"), &codes["containerName"], why));
    }
    let (list, place) = (arr(codes, "/values"), format!("{at}.values"));
    if list.is_empty() {
        out.push(Cause::invalid(place.as_str(), &json!([]), "at least one value is required"));
    }
    too_many(&place, list.len(), 255, out);
    for (i, v) in list.iter().enumerate() {
        if codes["operator"] == "In" && v == &json!(0) {
            out.push(Cause::invalid(format!("{place}[{i}]"), v, "must not be 0 for the In operator"));
        }
        if list[..i].contains(v) {
            out.push(duplicate(format!("{place}[{i}]"), v));
        }
    }
    if list.windows(2).any(|w| w[0].as_i64() > w[1].as_i64()) {
        out.push(Cause::invalid(place, &codes["values"], "must be ordered"));
    }
}

fn success(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let policy = &spec["successPolicy"];
    if !policy.is_object() {
        return;
    }
    let rules = arr(policy, "/rules");
    if spec["completionMode"] != "Indexed" {
        let shown =
            |r: &Value| json!({"SucceededIndexes": r["succeededIndexes"], "SucceededCount": r["succeededCount"]});
        let shown = json!({"Rules": rules.iter().map(shown).collect::<Vec<_>>()});
        out.push(Cause::invalid(at, &shown, "requires indexed completion mode"));
        return;
    }
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        out.push(Cause::required(format!("{at}.rules"), why));
    }
    too_many(&format!("{at}.rules"), rules.len(), 20, out);
    let completions = spec["completions"].as_i64().unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        let (at, count) = (format!("{at}.rules[{i}]"), &rule["succeededCount"]);
        if count.is_null() && rule["succeededIndexes"].is_null() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            out.push(Cause::required(at.as_str(), why));
        }
        let total = rule["succeededIndexes"].as_str().map(|text| intervals(text, completions));
        if let Some(Err(why)) = &total {
            let why = format!("error parsing succeededIndexes: {why}");
            out.push(Cause::invalid(format!("{at}.succeededIndexes"), &rule["succeededIndexes"], &why));
        }
        counted(rule, &at, &["succeededCount"], out);
        let mut most = |n: i64, what: &str| {
            if count.as_i64().is_some_and(|c| c > n) {
                let why = format!("must be less than or equal to {n} ({what})");
                out.push(Cause::invalid(format!("{at}.succeededCount"), count, &why));
            }
        };
        most(completions, "the number of specified completions");
        if let Some(total) = total {
            most(total.unwrap_or(0), "the number of indexes in the specified succeededIndexes field");
        }
    }
}

/// How many indexes a text like `0-2,5` names.
pub(super) fn intervals(text: &str, completions: i64) -> Result<i64, String> {
    let number = |t: &str| match t.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {t:?}")),
        Ok(n) if n >= completions => Err(format!("too large index: {t:?}")),
        Ok(n) => Ok(n),
    };
    let order = |a: i64, b: i64| Err(format!("non-increasing order, previous: {a}, current: {b}"));
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = match part.split('-').collect::<Vec<_>>()[..] {
            [one] => number(one).map(|n| (n, n))?,
            [a, b] => (number(a)?, number(b)?),
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if part.contains('-') && from >= to {
            return order(from, to);
        }
        if let Some(before) = last.filter(|l| *l >= from) {
            return order(before, from);
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

/// What of a Job's template may change before it starts.
const UNSTARTED: &[&str] = &["/spec/affinity", "/spec/nodeSelector", "/spec/tolerations", "/spec/schedulingGates"];

/// Refuses changes of a Job beside those that may be.
pub(super) fn changed(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    completions(&old["spec"], &new["spec"], out);
    let (was, is) = (&old["spec"], &new["spec"]);
    fixed("selector", was, is, &is["selector"], out);
    let waits = was["suspend"] == true && old["status"]["startTime"].is_null();
    let rest = |o: &Value| {
        let mut t = o["spec"]["template"].clone();
        if waits {
            for field in UNSTARTED.iter().chain(&["/metadata/labels", "/metadata/annotations"]) {
                t.pointer_mut(field).map(Value::take);
            }
            for list in ["/spec/containers", "/spec/initContainers"] {
                let all = t.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
                all.for_each(|c| c["resources"] = Value::Null);
            }
        }
        tidy(&mut t);
        t
    };
    if rest(old) != rest(new) {
        let (at, shown) = if waits {
            ("spec.template.spec", goshape::shaped("PodSpec", &is["template"]["spec"]))
        } else {
            ("spec.template", goshape::template(&is["template"]))
        };
        out.push(Cause::invalid(at, &shown, "field is immutable"));
    }
    fixed("completionMode", was, is, &is["completionMode"], out);
    fixed("podFailurePolicy", was, is, &policy(&is["podFailurePolicy"]), out);
    fixed("backoffLimitPerIndex", was, is, &is["backoffLimitPerIndex"], out);
    fixed("managedBy", was, is, &is["managedBy"], out);
    fixed("successPolicy", was, is, &is["successPolicy"], out);
}

fn fixed(field: &str, was: &Value, is: &Value, shown: &Value, out: &mut Vec<Cause>) {
    if was[field] != is[field] {
        out.push(Cause::invalid(format!("spec.{field}"), shown, "field is immutable"));
    }
}

/// A failure policy as the server's own struct prints it.
fn policy(p: &Value) -> Value {
    if !p.is_object() {
        return Value::Null;
    }
    let codes = |c: &Value| match c.is_object() {
        true => json!({"ContainerName": c["containerName"], "Operator": c["operator"], "Values": c["values"]}),
        false => Value::Null,
    };
    let conditions = |l: &Value| match l.as_array() {
        Some(l) => l.iter().map(|c| json!({"Type": c["type"], "Status": c["status"]})).collect(),
        None => Value::Null,
    };
    let rule = |r: &Value| {
        json!({"Action": r["action"], "OnExitCodes": codes(&r["onExitCodes"]),
            "OnPodConditions": conditions(&r["onPodConditions"])})
    };
    json!({"Rules": arr(p, "/rules").iter().map(rule).collect::<Vec<_>>()})
}

fn completions(was: &Value, is: &Value, out: &mut Vec<Cause>) {
    let (had, has) = (&was["completions"], &is["completions"]);
    let why = match is["completionMode"].as_str() {
        _ if had == has => return,
        Some("Indexed") if *has == is["parallelism"] => return,
        Some("Indexed") => "can only be modified in tandem with spec.parallelism",
        _ => "field is immutable",
    };
    out.push(Cause::invalid("spec.completions", has, why));
}

/// Checks a CronJob; `old` is its spec as it was.
pub(super) fn cron(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let text = s(spec, "/schedule");
    if text.is_empty() {
        out.push(Cause::required("spec.schedule", ""));
    } else {
        out.extend(cron::trouble(text).map(|why| Cause::invalid("spec.schedule", &text.into(), &why)));
        if text.contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            out.push(Cause::invalid("spec.schedule", &text.into(), why));
        }
    }
    counted(spec, "spec", &["startingDeadlineSeconds"], out);
    if old.is_none_or(|o| o["timeZone"] != spec["timeZone"]) {
        zone(&spec["timeZone"], out);
    }
    one_of("spec.concurrencyPolicy".into(), &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"], out);
    let (job, at) = (&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec");
    body(job, at, out);
    if job["selector"].is_object() {
        out.push(Cause::invalid(format!("{at}.selector"), &job["selector"], "`selector` will be auto-generated"));
    }
    if job["manualSelector"] == true {
        out.push(Cause::unsupported(format!("{at}.manualSelector"), &true.into(), &words(&["nil", "false"])));
    }
    counted(spec, "spec", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], out);
}

fn zone(v: &Value, out: &mut Vec<Cause>) {
    let Some(name) = v.as_str() else { return };
    let mut say = |why: &str| out.push(Cause::invalid("spec.timeZone", v, why));
    let part = |p: &str| {
        (1..=14).contains(&p.len())
            && p != "."
            && p != ".."
            && !p.starts_with('-')
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
    };
    if name.is_empty() {
        say("timeZone must be nil or non-empty string");
    } else if !name.split('/').all(part) {
        say(&format!("unknown time zone {name}"));
    } else if name.eq_ignore_ascii_case("local") {
        say("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
        if name != "Local" {
            say(&format!("unknown time zone {name}"));
        }
    } else if !zones::known(name) {
        say(&format!("unknown time zone {name}"));
    }
}
