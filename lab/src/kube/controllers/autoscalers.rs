//! HorizontalPodAutoscalers: the replicas of a workload follow the CPU that its pods use. Grade: docs.
use serde_json::{Value, json};

use super::super::cx::{Cx, set_condition};
use super::super::text::{arr, milli, s};
use super::pods;
use crate::kube::api::metrics::{self, usage};

const SCALERS: &str = "horizontalpodautoscalers.autoscaling";

/// How long fewer replicas have to be enough before some go, in milliseconds.
const PATIENCE: u64 = 300_000;

/// Workloads or autoscalers of a namespace changed.
pub fn reconcile(cx: &mut Cx, ns: &str) {
    let all: Vec<String> = cx.list_in(SCALERS, ns).into_iter().map(|h| s(h, "/metadata/name").to_owned()).collect();
    for name in all {
        one(cx, ns, &name, false);
    }
}

/// Fewer replicas have been enough for a while.
pub fn due(cx: &mut Cx, ns: &str, name: &str) {
    one(cx, ns, name, true);
}

/// Average CPU of a workload's pods in percent of what they request, and in thousandths of a core.
fn utilization(cx: &Cx, ns: &str, target: &Value) -> Result<(i64, i64), String> {
    let fail = |why: String| Err(format!("failed to get cpu utilization: {why}"));
    if !metrics::up(cx.c) {
        return fail(
            "unable to get metrics for resource cpu: no metrics returned from resource metrics API".to_owned(),
        );
    }
    let (mut used, mut asked, mut count) = (0, 0, 0);
    let behind = cx.c.store.select("pods", ns, &target["spec"]["selector"]);
    for p in behind.into_iter().filter(|p| pods::is_ready(p)) {
        count += 1;
        for c in arr(p, "/spec/containers") {
            let request = milli(&c["resources"]["requests"]["cpu"]);
            if request == 0 {
                let (c, p) = (s(c, "/name"), s(p, "/metadata/name"));
                return fail(format!("missing request for cpu in container {c} of Pod {p}"));
            }
            used += usage(p, c).0;
            asked += request;
        }
    }
    if asked == 0 {
        fail("no pods returned by selector while calculating replica count".to_owned())
    } else {
        Ok((used * 100 / asked, used / count))
    }
}

/// The percentage that is aimed at.
fn goal(h: &Value) -> Option<i64> {
    let cpu = arr(h, "/spec/metrics").iter().find(|m| m["resource"]["name"] == "cpu")?;
    cpu["resource"]["target"]["averageUtilization"].as_i64().filter(|n| *n > 0)
}

fn one(cx: &mut Cx, ns: &str, name: &str, late: bool) {
    let Some(h) = cx.get(SCALERS, ns, name).cloned() else { return };
    let target = s(&h, "/spec/scaleTargetRef/name").to_owned();
    let resource = match s(&h, "/spec/scaleTargetRef/kind") {
        "StatefulSet" => "statefulsets.apps",
        "ReplicaSet" => "replicasets.apps",
        "ReplicationController" => "replicationcontrollers",
        _ => "deployments.apps",
    };
    let stamp = cx.stamp();
    let Some(t) = cx.get(resource, ns, &target).cloned() else {
        let missing = format!("{resource} \"{target}\" not found");
        let why = format!("the HPA controller was unable to get the target's current scale: {missing}");
        cx.update(SCALERS, ns, name, |o| {
            set_condition(o, &stamp, "AbleToScale", "False", "FailedGetScale", &why);
        });
        return told(cx, &h, "FailedGetScale", &missing);
    };
    let (min, max) = (h["spec"]["minReplicas"].as_i64().unwrap_or(1), h["spec"]["maxReplicas"].as_i64().unwrap_or(1));
    let have = t["spec"]["replicas"].as_i64().unwrap_or(1);
    let use_now = utilization(cx, ns, &t);
    let ideal = match (goal(&h), &use_now) {
        // a tenth more or less changes nothing
        (Some(goal), Ok((now, _))) if (now - goal).abs() * 10 <= goal => have,
        (Some(goal), Ok((now, _))) => (have * now + goal - 1) / goal,
        _ => have,
    };
    if let (Err(e), true) = (&use_now, (min..=max).contains(&have)) {
        return unable(cx, &h, &t, e);
    }
    let mut want = ideal.clamp(min, max.max(min));
    let held = want < have && have <= max && !late;
    if held {
        want = have;
        if !cx.will_look((SCALERS, ns, name)) {
            cx.look_later(PATIENCE, (SCALERS, ns, name));
        }
    }
    if want != have {
        cx.update(resource, ns, &target, |o| o["spec"]["replicas"] = json!(want));
        let why = if have < min {
            "Current number of replicas below Spec.MinReplicas"
        } else if have > max {
            "Current number of replicas above Spec.MaxReplicas"
        } else if want > have {
            "cpu resource utilization (percentage of request) above target"
        } else {
            "All metrics below target"
        };
        cx.event(
            &h,
            true,
            "SuccessfulRescale",
            &format!("New size: {want}; reason: {why}"),
            "horizontal-pod-autoscaler",
        );
    }
    let shown = t["status"]["replicas"].as_i64().unwrap_or(0);
    cx.update(SCALERS, ns, name, |o| {
        o["status"]["currentReplicas"] = json!(shown);
        o["status"]["desiredReplicas"] = json!(want);
        if want != have {
            o["status"]["lastScaleTime"] = json!(stamp);
        }
        report(o, &stamp, use_now, (ideal, min, max), held);
    });
}

/// An event of an autoscaler, once per look that finds something else than the one before.
fn told(cx: &mut Cx, h: &Value, reason: &str, text: &str) {
    let mark = format!("hpa/{}/{reason}", s(h, "/metadata/uid"));
    if cx.c.apps.get(&mark).and_then(Value::as_str) != Some(text) {
        cx.c.apps.insert(mark, json!(text));
        cx.event(h, false, reason, text, "horizontal-pod-autoscaler");
    }
}

/// Nobody knows what the pods use: the replicas stay.
fn unable(cx: &mut Cx, h: &Value, target: &Value, why: &str) {
    told(cx, h, "FailedGetResourceMetric", why);
    let all =
        format!("invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}");
    told(cx, h, "FailedComputeMetricsReplicas", &all);
    let (ns, name) = super::super::cx::key(h);
    let (stamp, shown) = (cx.stamp(), target["status"]["replicas"].as_i64().unwrap_or(0));
    let text = format!("the HPA was unable to compute the replica count: {why}");
    cx.update(SCALERS, &ns, &name, |o| {
        o["status"]["currentReplicas"] = json!(shown);
        if o["status"]["desiredReplicas"].is_null() {
            o["status"]["desiredReplicas"] = json!(0);
        }
        // one for each metric, with nothing in it
        o["status"]["currentMetrics"] = json!([{"type": ""}]);
        let able = "the HPA controller was able to get the target's current scale";
        set_condition(o, &stamp, "AbleToScale", "True", "SucceededGetScale", able);
        set_condition(o, &stamp, "ScalingActive", "False", "FailedGetResourceMetric", &text);
    });
}

/// What the conditions say.
fn report(o: &mut Value, stamp: &str, now: Result<(i64, i64), String>, (ideal, min, max): (i64, i64, i64), held: bool) {
    let (reason, text) = if held {
        (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
    } else {
        ("ReadyForNewScale", "recommended size matches current size")
    };
    set_condition(o, stamp, "AbleToScale", "True", reason, text);
    match now {
        Ok((percent, average)) => {
            o["status"]["currentMetrics"] = json!([{"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": percent, "averageValue": format!("{average}m")}}}]);
            let text = "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)";
            set_condition(o, stamp, "ScalingActive", "True", "ValidMetricFound", text);
        }
        Err(e) => {
            let text = format!("the HPA was unable to compute the replica count: {e}");
            set_condition(o, stamp, "ScalingActive", "False", "FailedGetResourceMetric", &text);
        }
    }
    let (value, reason, text) = if ideal < min {
        ("True", "TooFewReplicas", "the desired replica count is less than the minimum replica count")
    } else if ideal > max {
        ("True", "TooManyReplicas", "the desired replica count is more than the maximum replica count")
    } else {
        ("False", "DesiredWithinRange", "the desired count is within the acceptable range")
    };
    set_condition(o, stamp, "ScalingLimited", value, reason, text);
}
