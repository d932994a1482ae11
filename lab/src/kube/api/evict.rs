//! The `eviction` subresource: pods go when their disruption budgets allow it.
use serde_json::{Value, json};

use super::route::Target;
use super::{Answer, Call, decode, options, read, sub, write};
use crate::kube::controllers::pods;
use crate::kube::schema::Kind;
use crate::kube::store::{Failure, meta};

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// Budgets that cover the pod.
fn budgets(call: &Call<'_>, t: &Target, pod: &Value) -> Result<Vec<Value>, Failure> {
    read::store(call, BUDGETS, |s| {
        let covers = |b: &Value| {
            s.select("pods", &t.namespace, &b["spec"]["selector"]).iter().any(|p| meta::uid(p) == meta::uid(pod))
        };
        Ok(s.list(BUDGETS, &t.namespace, "").into_iter().filter(|b| covers(b)).cloned().collect())
    })
}

fn refused(b: &Value) -> Failure {
    let name = meta::name(b);
    let (want, have) =
        (b["status"]["desiredHealthy"].as_i64().unwrap_or(0), b["status"]["currentHealthy"].as_i64().unwrap_or(0));
    let cause = json!({"reason": "DisruptionBudget",
        "message": format!("The disruption budget {name} needs {want} healthy pods and has {have} currently")});
    let mut f =
        Failure::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    f.details = Some(json!({"causes": [cause]}));
    f
}

/// POST of an Eviction.
///
/// # Errors
/// 404, 409, 422; 429 when a budget forbids it.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    // the group's old version is still spoken here
    let old = |v: &mut Value| {
        if v["apiVersion"] == "policy/v1beta1" {
            v["apiVersion"] = json!("policy/v1");
        }
    };
    let req = decode::rewritten(call.req, old).unwrap_or_else(|| call.req.clone());
    let (body, _) = decode::object(&Call { req: &req, ..call.clone() }, &sub::taken("policy/v1", "Eviction", true), t)?;
    if meta::name(&body) != t.name.as_deref().unwrap_or_default() {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let dry = options::write(call.req, "CreateOptions")?;
    let mut o = options::delete(call.req, &body["deleteOptions"])?;
    o.dry_run |= dry;
    let pod = sub::target(call, kind, t)?;
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    let going = meta::deleting(&pod);
    let covering = if over || going { Vec::new() } else { budgets(call, t, &pod)? };
    if covering.len() > 1 {
        return Err(Failure::new(
            500,
            "InternalError",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    let name = t.name.as_deref().unwrap_or_default();
    if let Some(b) = covering.first() {
        let ready = pod["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        let free = b["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) > 0;
        let always = b["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        let enough = b["status"]["currentHealthy"].as_i64() >= b["status"]["desiredHealthy"].as_i64();
        let lets = free || !ready && (always || enough && b["status"]["desiredHealthy"].as_i64() > Some(0));
        if !lets {
            return Err(refused(b));
        }
        if ready && !o.dry_run {
            // The budget is used up at once, before its controller has counted again.
            let budget = meta::name(b).to_owned();
            let _ = read::store(call, BUDGETS, |s| {
                s.patch_with(BUDGETS, &t.namespace, &budget, |b| {
                    let left = b["status"]["disruptionsAllowed"].as_i64().unwrap_or(1) - 1;
                    b["status"]["disruptionsAllowed"] = json!(left.max(0));
                })
            });
        }
    }
    let meets = o.uid.as_deref().is_none_or(|u| u == meta::uid(&pod))
        && o.version.as_deref().is_none_or(|v| pod["metadata"]["resourceVersion"] == v);
    if !o.dry_run && !going && meets {
        o.version = None;
        let stamp = call.lab.with(|w| meta::time(w.now_ms));
        read::store(call, "pods", |s| {
            s.patch_unnoted("pods", &t.namespace, name, |p| {
                let why = ("EvictionByEvictionAPI", "Eviction API: evicting");
                pods::disrupted(p, &stamp, why.0, why.1);
                let all = p["status"]["conditions"].as_array_mut();
                let target = all.and_then(|c| c.iter_mut().find(|c| c["type"] == "DisruptionTarget"));
                target.and_then(Value::as_object_mut).map(|c| c.shift_remove("observedGeneration"));
            })
        })?;
    }
    read::store(call, "pods", |s| s.delete_as(kind, &t.namespace, name, &o))?;
    write::ring(call);
    Ok(Answer { code: 201, body: sub::success(), warnings: Vec::new() })
}
