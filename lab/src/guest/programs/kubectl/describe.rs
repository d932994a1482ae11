//! `kubectl describe` on a node: every object in the form that kubectl has for kinds it does not know, with its events.
use serde_json::{Map, Value};

use super::super::Call;
use super::get::Get;
use super::items::{encoded, must_know, path_of};
use super::request::{At, JSON, ask, refused};
use super::table::columns;
use crate::kube::api::table;

/// Lines: a label and its value, or a heading.
#[derive(Default)]
struct Page(Vec<(String, Option<String>)>);

impl Page {
    fn pair(&mut self, level: usize, label: &str, value: &str) {
        self.0.push((format!("{}{label}:", "  ".repeat(level)), Some(value.to_owned())));
    }

    fn bare(&mut self, level: usize, text: &str) {
        self.0.push((format!("{}{text}", "  ".repeat(level)), None));
    }

    /// Values stand in a column as long as no line without one comes between.
    fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        for run in self.0.chunk_by(|a, b| a.1.is_some() == b.1.is_some()) {
            let wide = run.iter().map(|r| r.0.chars().count()).max().unwrap_or(0) + 2;
            out.extend(run.iter().map(|(label, value)| match value {
                Some(v) => format!("{label:<wide$}{v}").trim_end().to_owned(),
                None => label.clone(),
            }));
        }
        out
    }

    fn labels(&mut self, label: &str, map: &Value) {
        let pairs: Vec<String> =
            map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", plain(v))).collect();
        if pairs.is_empty() {
            return self.pair(0, label, "<none>");
        }
        for (i, text) in pairs.iter().enumerate() {
            if i == 0 { self.pair(0, label, text) } else { self.0.push((String::new(), Some(text.clone()))) }
        }
    }

    fn content(&mut self, level: usize, map: &Map<String, Value>, skip: &[&str]) {
        let mut keys: Vec<&String> = map.keys().filter(|k| !skip.contains(&k.as_str())).collect();
        keys.sort();
        for k in keys {
            let label = words(k);
            match &map[k] {
                Value::Object(inner) => {
                    self.bare(level, &format!("{label}:"));
                    self.content(level + 1, inner, &[]);
                }
                Value::Array(list) => {
                    self.bare(level, &format!("{label}:"));
                    for item in list {
                        match item {
                            Value::Object(inner) => self.content(level + 1, inner, &[]),
                            other => self.bare(level + 1, &plain(other)),
                        }
                    }
                }
                other => self.pair(level, &label, &plain(other)),
            }
        }
    }
}

fn plain(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// `hostIP` is `Host IP`.
fn words(key: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut lower = false;
    for ch in key.chars() {
        if parts.is_empty() || (ch.is_uppercase() && lower) {
            parts.push(ch.to_uppercase().to_string());
        } else if let Some(last) = parts.last_mut() {
            last.push(ch);
        }
        lower = !ch.is_uppercase();
    }
    let known = |p: &String| ["Api", "Url", "Uid", "Guid"].contains(&p.as_str());
    parts.iter().map(|p| if known(p) { p.to_uppercase() } else { p.clone() }).collect::<Vec<_>>().join(" ")
}

/// Runs `kubectl describe`; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let g = Get::read(words).filter(|g| g.output.is_empty())?;
    if g.wanted.is_empty() {
        return Some(c.fail(1, "error: You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources."));
    }
    let (mut code, mut found) = (0, Vec::new());
    for (word, names) in &g.wanted {
        let kind = match must_know(c, at, word) {
            Ok(kind) => kind,
            Err(code) => return Some(code),
        };
        let base = path_of(&kind, (kind.namespaced && !g.all).then_some(g.namespace.as_str()));
        let paths: Vec<String> =
            if names.is_empty() { vec![base] } else { names.iter().map(|n| format!("{base}/{n}")).collect() };
        let query = format!("labelSelector={}", encoded(&g.selector));
        for path in paths {
            let list = match ask(c, at, &path, &query, JSON).await {
                (200, v) => v["items"].as_array().cloned().unwrap_or_else(|| vec![v]),
                (_, v) => {
                    code = refused(c, &v);
                    continue;
                }
            };
            for mut object in list {
                // The items of a list do not say what they are.
                object["apiVersion"] = kind.api_version().into();
                object["kind"] = kind.kind.clone().into();
                found.push(object);
            }
        }
    }
    if found.is_empty() && code == 0 {
        c.complain(&format!("No resources found in {} namespace.", g.namespace));
    }
    for (i, object) in found.iter().enumerate() {
        if i > 0 {
            c.print("\n\n");
        }
        let events = events(c, at, object).await;
        for l in page(object).lines().iter().chain(&events) {
            c.line(l);
        }
    }
    Some(code)
}

fn page(o: &Value) -> Page {
    let mut p = Page::default();
    let meta = &o["metadata"];
    p.pair(0, "Name", &plain(&meta["name"]));
    p.pair(0, "Namespace", meta["namespace"].as_str().unwrap_or_default());
    p.labels("Labels", &meta["labels"]);
    p.labels("Annotations", &meta["annotations"]);
    p.pair(0, "API Version", &plain(&o["apiVersion"]));
    p.pair(0, "Kind", &plain(&o["kind"]));
    if let Some(m) = meta.as_object() {
        p.bare(0, "Metadata:");
        p.content(1, m, &["name", "namespace", "labels", "annotations", "managedFields"]);
    }
    if let Some(m) = o.as_object() {
        let mut shown = m.clone();
        if m.get("kind").is_some_and(|k| k == "Secret") {
            hide(&mut shown);
        }
        p.content(0, &shown, &["metadata", "apiVersion", "kind"]);
    }
    p
}

/// Values of secrets are shown by their size.
fn hide(secret: &mut Map<String, Value>) {
    for v in secret.get_mut("data").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        let bytes = v.as_str().and_then(crate::kube::text::unb64).map_or(0, |b| b.len());
        *v = format!("{bytes} bytes").into();
    }
}

async fn events(c: &Call, at: &At, o: &Value) -> Vec<String> {
    let (name, kind) = (plain(&o["metadata"]["name"]), plain(&o["kind"]));
    let ns = o["metadata"]["namespace"].as_str().unwrap_or("default");
    let (_, list) = ask(c, at, &format!("/api/v1/namespaces/{ns}/events"), "", JSON).await;
    let of = |e: &&Value| e["involvedObject"]["name"] == name.as_str() && e["involvedObject"]["kind"] == kind.as_str();
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut rows =
        vec![row(["Type", "Reason", "Age", "From", "Message"]), row(["----", "------", "----", "----", "-------"])];
    for e in list["items"].as_array().into_iter().flatten().filter(of) {
        let last = ["lastTimestamp", "eventTime"].iter().find_map(|k| e[*k].as_str());
        let ms = last.and_then(crate::kube::store::meta::parse_time);
        let age = ms.map_or(0, |t| c.m.lab.clock().now_ms().saturating_sub(t));
        let from = e["source"]["component"].as_str().or_else(|| e["reportingComponent"].as_str()).unwrap_or_default();
        let message = plain(&e["message"]).trim().replace('\n', " ");
        rows.push(vec![plain(&e["type"]), plain(&e["reason"]), table::age(age), from.to_owned(), message]);
    }
    if rows.len() == 2 {
        return vec!["Events:  <none>".to_owned()];
    }
    std::iter::once("Events:".to_owned()).chain(columns(&rows).into_iter().map(|l| format!("  {l}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_written_as_kubectl_writes_kinds_that_it_does_not_know() {
        let o = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "b", "uid": "u",
            "labels": {"x": "1", "y": "2"}}, "spec": {"hostIP": "1.2.3.4", "list": ["one", {"k": 1}], "empty": {}}});
        let want = "Name:         a\nNamespace:    b\nLabels:       x=1\n              y=2\nAnnotations:  <none>\n\
            API Version:  v1\nKind:         Thing\nMetadata:\n  UID:  u\nSpec:\n  Empty:\n  Host IP:  1.2.3.4\n  List:\n    one\n    \
            K:  1";
        assert_eq!(page(&o).lines().join("\n"), want);
        assert_eq!(words("lastTransitionTime"), "Last Transition Time");
    }
}
