//! `pods/resize`: other requests and limits for containers that go on running. Grade: source.
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, patch, write};
use crate::kube::schema::Kind;
use crate::kube::store::write::set_condition;
use crate::kube::store::{Failure, Store, meta};
use crate::kube::text::{arr, milli};

/// GET, PUT and PATCH.
///
/// # Errors
/// 404, 409, 422 for anything but cpu and memory.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let mut answer = match call.req.method.as_str() {
        "GET" => return read::get(call, kind, t),
        "PUT" => write::replace_sub(call, kind, t, "resize")?,
        "PATCH" => patch::patch_sub(call, kind, t, "resize")?,
        _ => return Err(Failure::not_allowed()),
    };
    if call.req.query.text("dryRun").is_none() {
        let (ns, name) = (namespace(kind, t), t.name.as_deref().unwrap_or_default());
        let now = read::store(call, "pods", |s| {
            taken_over(s, ns, name);
            Ok(s.arc("pods", ns, name).cloned())
        })?;
        if let Some(pod) = now {
            answer.body = (*pod).clone();
        }
    }
    Ok(answer)
}

/// What the pod asks for in all, in thousandths.
fn wanted(pod: &Value, resource: &str) -> i64 {
    arr(pod, "/spec/containers").iter().map(|c| milli(&c["resources"]["requests"][resource])).sum()
}

/// The kubelet's part: running containers get what is asked for, unless the node could never give it.
fn taken_over(s: &mut Store, ns: &str, name: &str) {
    let Some(pod) = s.get("pods", ns, name).cloned() else { return };
    let Some(node) = s.get("nodes", "", pod["spec"]["nodeName"].as_str().unwrap_or_default()).cloned() else { return };
    let lacking = ["cpu", "memory"].into_iter().find_map(|r| {
        let (want, has) = (wanted(&pod, r), milli(&node["status"]["allocatable"][r]));
        let (want, has) = if r == "cpu" { (want, has) } else { (want / 1000, has / 1000) };
        (want > has).then(|| format!("Node didn't have enough capacity: {r}, requested: {want}, capacity: {has}"))
    });
    let stamp = meta::time(s.now_ms());
    let _ = s.patch_with("pods", ns, name, |p| {
        if let Some(why) = &lacking {
            set_condition(&mut p["status"], &stamp, ("PodResizePending", "True", "Infeasible", why));
            return;
        }
        if let Some(list) = p["status"]["conditions"].as_array_mut() {
            list.retain(|c| c["type"] != "PodResizePending");
        }
        let asked: Vec<Value> = arr(p, "/spec/containers").iter().map(|c| c["resources"].clone()).collect();
        for (i, resources) in asked.into_iter().enumerate() {
            let entry = &mut p["status"]["containerStatuses"][i];
            if entry["state"]["running"].is_object() {
                entry["allocatedResources"] = resources.get("requests").cloned().unwrap_or_else(|| json!({}));
                entry["resources"] = resources;
            }
        }
    });
}
