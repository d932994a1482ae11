//! ComponentStatus: how the API server finds its companions; nothing of it is stored. Grade: source (the storage of
//! component statuses).
use std::sync::Arc;

use serde_json::{Value, json};

use super::route::Target;
use super::{Answer, Call, read};
use crate::kube::schema::Kind;
use crate::kube::store::Failure;

fn status(name: &str, up: bool) -> Value {
    let condition = if up {
        json!({"type": "Healthy", "status": "True", "message": "ok"})
    } else {
        json!({"type": "Healthy", "status": "False", "error": "context deadline exceeded"})
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

/// Serves a GET.
///
/// # Errors
/// 404 for a component that is none, 405 for writes, 406.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    if call.req.method != "GET" || t.sub.is_some() {
        return Err(Failure::not_allowed());
    }
    let form = read::form(call.req)?;
    let up = call.lab.with(|w| crate::kube::hooks::api_up(w, call.cluster, call.vmid));
    let all: Vec<Arc<Value>> = [("controller-manager", true), ("scheduler", true), ("etcd-0", up)]
        .into_iter()
        .map(|(name, up)| Arc::new(status(name, up)))
        .collect();
    let now = call.lab.clock().now_ms();
    let Some(name) = t.name.as_deref() else {
        let (labels, fields) = read::selectors(call, kind)?;
        let some: Vec<Arc<Value>> = all.into_iter().filter(|o| labels.matches(o) && fields.matches(o)).collect();
        return read::listed(call, kind, form, &some, json!({}), now).map(Answer::ok);
    };
    let one = all.iter().find(|o| o["metadata"]["name"] == name).ok_or_else(|| {
        // called otherwise there
        Failure::not_found(&Kind { plural: "componentstatus".into(), ..kind.clone() }, name)
    })?;
    let mut body = (**one).clone();
    read::shaped(call, kind, form, &mut body)?;
    Ok(Answer::ok(body))
}
