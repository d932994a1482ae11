//! Tables: kubectl's columns for the kinds people list.
mod apps;
mod core;
mod custom;
mod pods;
mod rest;

use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use custom::{closing, find};

use super::Call;
use super::read::partial;
use crate::kube::schema::Kind;
use crate::kube::store::meta;

/// `3m12s`, `5h`, `12d`, as kubectl writes ages.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1000;
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |big: u64, unit: &str, small: u64, sub: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{d}d"),
        _ => two(d / 365, "y", d % 365, "d"),
    }
}

/// An object as its row is made.
struct Row<'a> {
    o: &'a Value,
    now: u64,
    /// Minor version of the server.
    minor: u32,
}

impl Row<'_> {
    fn at(&self, p: &str) -> &Value {
        self.o.pointer(p).unwrap_or(&Value::Null)
    }
    fn list(&self, p: &str) -> &[Value] {
        self.at(p).as_array().map_or(&[], Vec::as_slice)
    }
    fn text(&self, p: &str) -> String {
        match self.at(p) {
            Value::String(s) => s.clone(),
            Value::Null => String::new(),
            v => v.to_string(),
        }
    }
    fn or(&self, p: &str, none: &str) -> String {
        let t = self.text(p);
        if t.is_empty() { none.to_owned() } else { t }
    }
    fn n(&self, p: &str) -> u64 {
        self.at(p).as_u64().unwrap_or(0)
    }
    fn name(&self) -> Value {
        json!(self.text("/metadata/name"))
    }
    fn age(&self) -> Value {
        json!(self.since("/metadata/creationTimestamp"))
    }
    fn since(&self, p: &str) -> String {
        meta::parse_time(&self.text(p)).map_or_else(|| "<unknown>".to_owned(), |t| age(self.now.saturating_sub(t)))
    }
    fn join(&self, p: &str, f: impl Fn(&Value) -> Option<String>) -> String {
        self.list(p).iter().filter_map(f).collect::<Vec<_>>().join(",")
    }
    /// A map of labels as a selector; `<none>` when it is empty.
    fn selector(&self, p: &str) -> String {
        let map = self.at(p).as_object().into_iter().flatten();
        let list: Vec<String> = map.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        if list.is_empty() { "<none>".to_owned() } else { list.join(",") }
    }
    fn containers(&self) -> [Value; 2] {
        let p = "/spec/template/spec/containers";
        ["name", "image"].map(|f| json!(self.join(p, |c| c[f].as_str().map(str::to_owned))))
    }
}

/// A column: name, JSON type, priority (1: only with `-o wide`).
type Column = (&'static str, &'static str, u8);
/// How the cells of a row are made.
type Cells = fn(&Row<'_>) -> Vec<Value>;

/// What tables of a kind look like.
struct Layout {
    columns: Vec<Column>,
    cells: Cells,
}

const NAME: Column = ("Name", "string", 0);
const AGE: Column = ("Age", "string", 0);

const fn text(name: &'static str) -> Column {
    (name, "string", 0)
}
const fn wide(name: &'static str) -> Column {
    (name, "string", 1)
}
const fn number(name: &'static str) -> Column {
    (name, "integer", 0)
}

fn layout(kind: &Kind, minor: u32) -> Layout {
    let found = pods::layout(kind)
        .or_else(|| core::layout(kind, minor))
        .or_else(|| apps::layout(kind))
        .or_else(|| rest::layout(kind));
    found.unwrap_or(Layout {
        columns: vec![NAME, ("Created At", "date", 0)],
        cells: |r| vec![r.name(), json!(r.text("/metadata/creationTimestamp"))],
    })
}

fn head((name, kind, priority): &Column) -> Value {
    // an attachment's driver is marked as its name
    let format = if matches!(*name, "Name" | "Attacher") { "name" } else { "" };
    json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
}

/// What a Table carries beside its cells.
#[derive(Debug, Clone)]
pub struct Shape {
    /// With column definitions.
    pub headed: bool,
    include: Include,
    minor: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Include {
    None,
    Metadata,
    Object,
}

impl Shape {
    /// As a request wants it.
    #[must_use]
    pub fn of(call: &Call<'_>) -> Shape {
        let include = match call.req.query.text("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        Shape { headed: true, include, minor: call.minor() }
    }
}

/// A Table of these objects.
#[must_use]
pub fn of(kind: &Kind, items: &[Arc<Value>], rv: &str, now: u64, shape: &Shape) -> Value {
    let layout = layout(kind, shape.minor);
    let heads = if kind.custom { custom::heads(kind) } else { layout.columns.iter().map(head).collect() };
    let rows: Vec<Value> = items
        .iter()
        .map(|o| {
            let r = Row { o, now, minor: shape.minor };
            let cells = if kind.custom { custom::cells(kind, &r) } else { (layout.cells)(&r) };
            let object = match shape.include {
                Include::None => Value::Null,
                Include::Metadata => partial(o),
                Include::Object => (**o).clone(),
            };
            let mut row = json!({"cells": cells});
            if let Some(ended) = pods::ended_row(kind, o) {
                row["conditions"] = ended;
            }
            row["object"] = object;
            row
        })
        .collect();
    let mut table = json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": rv},
        "columnDefinitions": if shape.headed { json!(heads) } else { json!([]) },
    });
    table["rows"] = Value::Array(rows);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        for kind in crate::kube::schema::kinds::builtin() {
            for minor in [34, 36] {
                let l = layout(kind, minor);
                let cells = (l.cells)(&Row { o: &json!({"metadata": {"name": "a"}}), now: 0, minor });
                assert_eq!(cells.len(), l.columns.len(), "{}", kind.kind);
            }
        }
    }

    #[test]
    fn accounts_have_no_column_of_secrets_since_kubernetes_1_35() {
        let kind = crate::kube::schema::kinds::builtin().iter().find(|k| k.kind == "ServiceAccount").unwrap();
        let count = |minor| layout(kind, minor).columns.len();
        assert_eq!((count(34), count(35)), (3, 2));
    }
}
