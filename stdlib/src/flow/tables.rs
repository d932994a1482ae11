//! `table(rows)` and `list.join(…)`: values as text.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};

use crate::core::ctx::RhaiResultOf;
use crate::core::error::OpError;
use crate::core::units::{Duration, Size};

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

/// A value as `print` shows it; maps as `key value`, lists with commas, so that a row stays a row.
fn cell(v: &Dynamic) -> String {
    if v.is_unit() {
        return String::new();
    }
    if let Some(d) = v.clone().try_cast::<Duration>() {
        return d.to_string();
    }
    if let Some(s) = v.clone().try_cast::<Size>() {
        return s.to_string();
    }
    if let Some(list) = v.read_lock::<Array>() {
        return list.iter().map(cell).collect::<Vec<_>>().join(", ");
    }
    if let Some(map) = v.read_lock::<Map>() {
        return map.iter().map(|(k, v)| format!("{k} {}", cell(v))).collect::<Vec<_>>().join(", ");
    }
    v.to_string()
}

fn columns(rows: &[Map]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in rows.iter().flat_map(Map::keys) {
        if !names.iter().any(|n| n == key.as_str()) {
            names.push(key.to_string());
        }
    }
    // Identity first; maps have no order of their own.
    let rank = |n: &str| {
        ["name", "namespace", "node", "vmid", "target", "what", "before"].iter().position(|k| *k == n).unwrap_or(9)
    };
    names.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.cmp(b)));
    names
}

fn aligned(rows: &[Map]) -> String {
    let names = columns(rows);
    let mut lines: Vec<Vec<String>> = vec![names.iter().map(|n| n.to_uppercase()).collect()];
    lines.extend(rows.iter().map(|r| names.iter().map(|n| r.get(n.as_str()).map(cell).unwrap_or_default()).collect()));
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

#[export_module]
#[allow(missing_docs)]
mod api {
    /// The items as one text, `separator` between them; each as `print` shows it.
    ///
    /// # Example
    /// ```rhai
    /// print(site().node_names().join(", "));
    /// ```
    #[rhai_fn(global, pure)]
    pub fn join(list: &mut Array, separator: &str) -> String {
        list.iter().map(cell).collect::<Vec<_>>().join(separator)
    }

    /// Rows (maps) as an aligned text table.
    ///
    /// # Example
    /// ```rhai
    /// print(table([#{ name: "a", cores: 4 }, #{ name: "b", cores: 16 }]));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn table(ncc: NativeCallContext, rows: Array) -> RhaiResultOf<String> {
        let mut maps = Vec::new();
        for row in rows {
            let kind = row.type_name().rsplit("::").next().unwrap_or_default();
            match row.try_cast::<Map>() {
                Some(map) => maps.push(map),
                None => {
                    return Err(OpError::invalid(format!("a row of `table` is a map, this one is `{kind}`"))
                        .hint("make maps of them: `list.map(|x| #{ name: x.name })`")
                        .into_rhai(&ncc));
                }
            }
        }
        Ok(aligned(&maps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_what_print_shows() {
        let os: Map = [("id".into(), "debian".into())].into_iter().collect();
        let row: Map = [
            ("memory".into(), Dynamic::from(Size(16 << 30))),
            ("os".into(), Dynamic::from_map(os)),
            ("up".into(), Dynamic::from(Duration(std::time::Duration::from_secs(90)))),
            ("name".into(), "a".into()),
        ]
        .into_iter()
        .collect();
        let text = aligned(&[row]);
        assert_eq!(text.lines().nth(1).unwrap(), "a     16 GiB  id debian  1m 30s", "{text}");
        let change: Map = ["after", "before", "what"].into_iter().map(|k| (k.into(), k.into())).collect();
        assert_eq!(aligned(&[change]).lines().next().unwrap(), "WHAT  BEFORE  AFTER");
    }
}
