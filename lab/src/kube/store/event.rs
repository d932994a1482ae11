//! Events of objects, counted up when they repeat.
use serde_json::{Value, json};

use super::{Store, meta};

/// Events of an object that differ only in their texts, before they are combined.
const DIFFERENT: usize = 9;
const COMBINED: &str = "(combined from similar events): ";

/// The namespace of the events of an object.
fn space(regarding: &Value) -> String {
    match meta::namespace(regarding) {
        "" => "default".to_owned(),
        ns => ns.to_owned(),
    }
}

fn reference(o: &Value) -> Value {
    let m = &o["metadata"];
    json!({"apiVersion": o["apiVersion"], "kind": o["kind"], "name": m["name"], "namespace": m["namespace"],
        "uid": m["uid"], "resourceVersion": m["resourceVersion"]})
}

impl Store {
    /// Reports an event about `regarding`; a repeated one counts up. `kind` is `Normal` or `Warning`,
    /// `source` the component (`kubelet`).
    pub fn event(&mut self, regarding: &Value, source: &str, kind: &str, reason: &str, message: &str) {
        self.event_at(regarding, "", source, kind, reason, message);
    }

    /// As [`Store::event`] about a part of `regarding` (`spec.containers{c}`), or about all of it when `part` is empty.
    pub fn event_at(&mut self, regarding: &Value, part: &str, source: &str, kind: &str, reason: &str, message: &str) {
        let ns = space(regarding);
        let name = meta::name(regarding).to_owned();
        let now = meta::time(self.now_ms);
        let (found, message) = self.known((regarding, part), &ns, source, kind, reason, message);
        if let Some(event) = found {
            let _ = self.patch_with("events", &ns, &event, |e| {
                e["count"] = (e["count"].as_u64().unwrap_or(1) + 1).into();
                e["lastTimestamp"] = now.as_str().into();
                e["message"] = message.as_str().into();
            });
            return;
        }
        let hex = self.nonce();
        // A kubelet says on which node it is.
        let host = match (source, regarding["kind"].as_str()) {
            ("kubelet", Some("Pod")) => regarding["spec"]["nodeName"].as_str().unwrap_or_default(),
            ("kubelet", Some("Node")) => name.as_str(),
            _ => "",
        };
        let mut event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{name}.{hex}"), "namespace": ns},
            "involvedObject": reference(regarding),
            "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "eventTime": null,
            "source": {"component": source},
            "reportingComponent": source, "reportingInstance": host,
        });
        if message.starts_with(COMBINED) {
            event["reportingComponent"] = "".into();
            event["reportingInstance"] = "".into();
        }
        if !host.is_empty() {
            event["source"]["host"] = host.into();
        }
        if !part.is_empty() {
            event["involvedObject"]["fieldPath"] = part.into();
        }
        let now_ms = self.now_ms;
        let _ = self.create(now_ms, event);
    }

    /// Reports an event in the manner of `events.k8s.io`: with what was done, and about what else. `reporter` is the
    /// component and the instance of it.
    pub fn event_of(
        &mut self,
        regarding: &Value,
        related: Option<&Value>,
        (kind, reason, action): (&str, &str, &str),
        message: &str,
        (reporter, instance): (&str, &str),
    ) {
        let (ns, name) = (space(regarding), meta::name(regarding).to_owned());
        let now = meta::micro_time(self.now_ms);
        let mut event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{name}.{}", self.nonce()), "namespace": ns},
            "involvedObject": reference(regarding),
            "reason": reason, "message": message, "type": kind, "action": action,
            "firstTimestamp": null, "lastTimestamp": null, "eventTime": now, "source": {},
            "reportingComponent": reporter, "reportingInstance": instance,
        });
        if let Some(other) = related {
            event["related"] = reference(other);
        }
        let now_ms = self.now_ms;
        let _ = self.create(now_ms, event);
    }

    /// What events of the same object are told apart by in their names. Names of later ones sort after those of earlier
    /// ones, as lists are in the order of names and clients keep it for what happened within a second.
    fn nonce(&mut self) -> String {
        let place = self.version() % 9_999 * 100 + self.random() % 100;
        format!("{:x}", self.now_ms.wrapping_mul(1_000_000).wrapping_add(place))
    }

    /// The event that such a report is counted in, and its text. Like client-go's correlator: equal ones count up, and
    /// after ten that differ only in their texts all further ones are one.
    fn known(
        &self,
        (regarding, part): (&Value, &str),
        ns: &str,
        source: &str,
        kind: &str,
        reason: &str,
        message: &str,
    ) -> (Option<String>, String) {
        let name = meta::name(regarding);
        let alike: Vec<&std::sync::Arc<Value>> = self
            .index
            .events(meta::uid(regarding))
            .filter_map(|k| self.objects.get("events")?.get(k))
            .filter(|e| {
                e["involvedObject"]["name"] == name
                    && meta::namespace(e) == ns
                    && e["reason"] == reason
                    && e["type"] == kind
                    && e["source"]["component"] == source
                    && e["involvedObject"]["fieldPath"].as_str().unwrap_or_default() == part
            })
            .collect();
        let named = |e: &&std::sync::Arc<Value>| Some(meta::name(e).to_owned());
        if let Some(same) = alike.iter().find(|e| e["message"] == message) {
            return (named(same), message.to_owned());
        }
        if alike.len() < DIFFERENT {
            return (None, message.to_owned());
        }
        let together = format!("{COMBINED}{message}");
        let one = alike.iter().find(|e| e["message"].as_str().is_some_and(|m| m.starts_with(COMBINED)));
        (one.and_then(named), together)
    }
}
