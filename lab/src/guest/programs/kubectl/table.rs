//! Tables, and what their cells say.
use serde_json::Value;

use super::super::Call;
use super::get::Get;
use super::items::typed;
use crate::kube::api::gojson::printed;
use crate::kube::api::table::find;
use crate::kube::schema::Kind;

fn cell(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// Columns three blanks apart, the last one as it is.
pub(in super::super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    like(rows, rows.iter())
}

/// Rows in columns as wide as those of `rows`.
pub(super) fn like<'a>(rows: &[Vec<String>], which: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |r: &Vec<String>| {
        let cells = r
            .iter()
            .enumerate()
            .map(|(i, t)| if i + 1 == r.len() { t.clone() } else { format!("{t:<width$}   ", width = widths[i]) });
        cells.collect::<String>()
    };
    which.map(line).collect()
}

/// Prints the table of one kind; among tables of other kinds its names say their kind.
pub(super) fn print(c: &mut Call, g: &Get, kind: &Kind, answers: &[Value], many: bool) {
    for l in columns(&rows(g, kind, answers, many)) {
        c.line(&l);
    }
}

/// The rows of a table, its head among them.
pub(super) fn rows(g: &Get, kind: &Kind, answers: &[Value], many: bool) -> Vec<Vec<String>> {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let mut rows: Vec<Value> = answers.iter().flat_map(|a| list(&a["rows"])).collect();
    sort(&mut rows, g, "/object");
    if g.output == "name" {
        let name = |r: &Value| vec![format!("{}/{}", typed(kind), cell(&r["object"]["metadata"]["name"]))];
        return rows.iter().map(name).collect();
    }
    let heads = answers.first().map(|a| list(&a["columnDefinitions"])).unwrap_or_default();
    let shown: Vec<usize> =
        (0..heads.len()).filter(|i| g.output == "wide" || heads[*i]["priority"].as_i64() == Some(0)).collect();
    let spread = kind.namespaced && g.all;
    let mut out: Vec<Vec<String>> = Vec::new();
    if !g.headless {
        let mut head: Vec<String> = shown.iter().map(|i| cell(&heads[*i]["name"]).to_uppercase()).collect();
        head.extend(g.columns.iter().map(|l| l.rsplit('/').next().unwrap_or(l).to_uppercase()));
        if g.labels {
            head.push("LABELS".to_owned());
        }
        if spread {
            head.insert(0, "NAMESPACE".to_owned());
        }
        out.push(head);
    }
    for r in &rows {
        let cells = list(&r["cells"]);
        let mut row: Vec<String> = shown.iter().map(|i| cells.get(*i).map(cell).unwrap_or_default()).collect();
        if let Some(name) = row.first_mut().filter(|_| many) {
            *name = format!("{}/{name}", typed(kind));
        }
        let own = &r["object"]["metadata"]["labels"];
        row.extend(g.columns.iter().map(|l| own[l].as_str().unwrap_or_default().to_owned()));
        if g.labels {
            let all = own.as_object();
            let mut pairs: Vec<String> = all.into_iter().flatten().map(|(k, v)| format!("{k}={}", cell(v))).collect();
            pairs.sort();
            row.push(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
        }
        if spread {
            row.insert(0, cell(&r["object"]["metadata"]["namespace"]));
        }
        out.push(row);
    }
    out
}

/// Sorts by the field that `--sort-by` names, which every value has below `at`.
pub(super) fn sort(all: &mut [Value], g: &Get, at: &str) {
    let Some(path) = &g.sorted_by else { return };
    let path = path.trim_start_matches('{').trim_end_matches('}');
    let key = |v: &Value| -> Value {
        let found = find(v.pointer(at).unwrap_or(v), path);
        found.first().map_or(Value::Null, |x| (*x).clone())
    };
    all.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        match (a.as_f64(), b.as_f64()) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            _ => cell(&a).cmp(&cell(&b)),
        }
    });
}

/// `-o custom-columns=NAME:PATH,…`
pub(super) fn custom(c: &mut Call, g: &Get, spec: &str, mut all: Vec<Value>) -> Option<i32> {
    let mut wanted = Vec::new();
    for part in spec.split(',') {
        let Some((name, path)) = part.split_once(':') else {
            let text = format!("error: unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            return Some(c.fail(1, &text));
        };
        wanted.push((name.to_owned(), path.to_owned()));
    }
    sort(&mut all, g, "");
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !g.headless {
        rows.push(wanted.iter().map(|k| k.0.clone()).collect());
    }
    for v in &all {
        let value = |path: &str| {
            let found: Vec<String> = find(v, path).into_iter().map(shown).collect();
            if found.is_empty() { "<none>".to_owned() } else { found.join(",") }
        };
        rows.push(wanted.iter().map(|k| value(&k.1)).collect());
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    None
}

/// A value as Go prints it in a column.
fn shown(v: &Value) -> String {
    if v.is_null() { "<nil>".to_owned() } else { printed(v) }
}
