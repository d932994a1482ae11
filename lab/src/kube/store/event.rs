//! Events of objects, counted up when they repeat.
use serde_json::{Value, json};

use super::{Store, meta};

impl Store {
    /// Reports an event about `regarding`; a repeated one counts up. `kind` is `Normal` or `Warning`,
    /// `source` the component (`kubelet`).
    pub fn event(&mut self, regarding: &Value, source: &str, kind: &str, reason: &str, message: &str) {
        let ns = match meta::namespace(regarding) {
            "" => "default".to_owned(),
            ns => ns.to_owned(),
        };
        let name = meta::name(regarding).to_owned();
        let now = meta::time(self.now_ms);
        let same = self
            .index
            .events(meta::uid(regarding))
            .filter_map(|k| self.objects.get("events")?.get(k))
            .find(|e| {
                e["involvedObject"]["name"] == name.as_str()
                    && meta::namespace(e) == ns
                    && e["reason"] == reason
                    && e["message"] == message
                    && e["type"] == kind
            })
            .map(|e| meta::name(e).to_owned());
        if let Some(event) = same {
            let _ = self.patch_with("events", &ns, &event, |e| {
                e["count"] = (e["count"].as_u64().unwrap_or(1) + 1).into();
                e["lastTimestamp"] = now.as_str().into();
            });
            return;
        }
        let hex = format!("{:x}", self.now_ms.wrapping_mul(1_000_000).wrapping_add(self.random() % 999_983));
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{name}.{hex}"), "namespace": ns},
            "involvedObject": {
                "apiVersion": regarding["apiVersion"], "kind": regarding["kind"], "name": name,
                "namespace": regarding["metadata"]["namespace"], "uid": regarding["metadata"]["uid"],
                "resourceVersion": regarding["metadata"]["resourceVersion"],
            },
            "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "eventTime": null,
            "source": {"component": source},
            "reportingComponent": source, "reportingInstance": "",
        });
        let now_ms = self.now_ms;
        let _ = self.create(now_ms, event);
    }
}
