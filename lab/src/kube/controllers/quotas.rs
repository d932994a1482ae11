//! ResourceQuotas: what a namespace uses of what it may.
use serde_json::{Map, Value, json};

use super::super::cx::Cx;
use super::super::store::{Store, charges};
use super::super::text::s;
use crate::kube::schema::defaults::told;

const QUOTAS: &str = "resourcequotas";

/// What is in a namespace by the keys of a quota.
fn used(store: &Store, ns: &str, q: &Value) -> Value {
    let mut out = Map::new();
    for (key, limit) in q["spec"]["hard"].as_object().into_iter().flatten() {
        let sum: i64 = charges::counted(key)
            .iter()
            .flat_map(|r| store.all(r, ns).map(move |o| (*r, o)))
            .filter(|(r, o)| charges::within(q, r, o))
            .filter_map(|(r, o)| charges::usage(r, o).get(key).copied())
            .sum();
        out.insert(key.clone(), told(sum, limit).into());
    }
    out.into()
}

/// Counts again in a namespace.
pub fn reconcile(cx: &mut Cx, ns: &str) {
    let all: Vec<Value> = cx.list_in(QUOTAS, ns).into_iter().cloned().collect();
    for q in all {
        let status = json!({"hard": q["spec"]["hard"], "used": used(&cx.c.store, ns, &q)});
        if q["status"] != status {
            cx.update(QUOTAS, ns, s(&q, "/metadata/name"), |o| o["status"] = status);
        }
    }
}
