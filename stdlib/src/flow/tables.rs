//! `table(rows)`: maps as aligned text.
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

fn cell(v: Option<&Dynamic>) -> String {
    match v {
        None => String::new(),
        Some(v) if v.is_unit() => String::new(),
        Some(v) => v.to_string(),
    }
}

fn columns(rows: &[Map]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in rows.iter().flat_map(Map::keys) {
        if !names.iter().any(|n| n == key.as_str()) {
            names.push(key.to_string());
        }
    }
    // Identity first; maps have no order of their own.
    let rank = |n: &str| ["name", "namespace", "node", "vmid"].iter().position(|k| *k == n).unwrap_or(9);
    names.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.cmp(b)));
    names
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// Rows (maps) as an aligned text table.
    ///
    /// # Example
    /// ```rhai
    /// print(table([#{ name: "a", cores: 4 }, #{ name: "b", cores: 16 }]));
    /// ```
    pub fn table(rows: Array) -> String {
        let rows: Vec<Map> = rows.into_iter().filter_map(|r| r.try_cast::<Map>()).collect();
        let names = columns(&rows);
        let mut lines: Vec<Vec<String>> = vec![names.iter().map(|n| n.to_uppercase()).collect()];
        lines.extend(rows.iter().map(|r| names.iter().map(|n| cell(r.get(n.as_str()))).collect()));
        let widths: Vec<usize> =
            (0..names.len()).map(|i| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0)).collect();
        let text: Vec<String> = lines
            .iter()
            .map(|l| {
                let cells: Vec<String> = l.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
                cells.join("  ").trim_end().to_owned()
            })
            .collect();
        text.join("\n")
    }
}
