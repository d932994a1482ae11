//! A TOML text with the place of every key and value, so that findings can point at them.
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// Something wrong with the site file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// A warning does not stop a run.
    pub warning: bool,
}

/// The parsed text: plain values plus places by path (`nodes.0.ip`).
pub(super) struct Source {
    pub(super) file: String,
    pub(super) table: toml::Table,
    lines: Vec<usize>,
    keys: BTreeMap<String, usize>,
    values: BTreeMap<String, usize>,
}

impl Source {
    /// Reads `text`; syntax errors become findings, all at once.
    pub(super) fn parse(file: &str, text: &str) -> Result<Source, Vec<Finding>> {
        let mut lines = vec![0];
        lines.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        let (doc, errors) = DeTable::parse_recoverable(text);
        let mut source = Source {
            file: file.to_owned(),
            table: toml::Table::new(),
            lines,
            keys: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        if !errors.is_empty() {
            let mut found: Vec<Finding> = errors
                .iter()
                .map(|e| source.at(e.span().map_or(0, |s| s.start), e.message().trim().to_owned(), None))
                .collect();
            found.sort_by_key(|f| (f.line, f.column));
            return Err(found);
        }
        source.table = source.walk_table("", doc.get_ref());
        Ok(source)
    }

    fn walk_table(&mut self, path: &str, t: &DeTable<'_>) -> toml::Table {
        let mut out = toml::Table::new();
        for (k, v) in t {
            let name = k.get_ref().to_string();
            let sub = join(path, &name);
            self.keys.insert(sub.clone(), k.span().start);
            self.values.insert(sub.clone(), v.span().start);
            let value = self.walk_value(&sub, v.get_ref());
            out.insert(name, value);
        }
        out
    }

    fn walk_value(&mut self, path: &str, v: &DeValue<'_>) -> toml::Value {
        match v {
            DeValue::String(s) => toml::Value::String(s.to_string()),
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
                .map_or_else(|_| toml::Value::String(i.as_str().to_owned()), toml::Value::Integer),
            DeValue::Float(f) => toml::Value::Float(f.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(b) => toml::Value::Boolean(*b),
            DeValue::Datetime(d) => toml::Value::Datetime(*d),
            DeValue::Array(a) => toml::Value::Array(
                a.iter()
                    .enumerate()
                    .map(|(i, v)| {
                        let sub = join(path, &i.to_string());
                        self.values.insert(sub.clone(), v.span().start);
                        self.walk_value(&sub, v.get_ref())
                    })
                    .collect(),
            ),
            DeValue::Table(t) => toml::Value::Table(self.walk_table(path, t)),
        }
    }

    /// Line of a value (or of its nearest parent).
    pub(super) fn line(&self, path: &str) -> usize {
        self.position(self.value_offset(path)).0
    }

    fn value_offset(&self, path: &str) -> usize {
        let mut p = path;
        loop {
            if let Some(o) = self.values.get(p) {
                return *o;
            }
            match p.rfind('.') {
                Some(i) => p = &p[..i],
                None => return 0,
            }
        }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|l| *l <= offset).max(1);
        (line, offset - self.lines[line - 1] + 1)
    }

    fn at(&self, offset: usize, message: String, hint: Option<String>) -> Finding {
        let (line, column) = self.position(offset);
        Finding { file: self.file.clone(), line, column, message, hint, warning: false }
    }

    /// A finding at the value of `path`.
    pub(super) fn value(&self, path: &str, message: impl Into<String>, hint: Option<String>) -> Finding {
        self.at(self.value_offset(path), message.into(), hint)
    }

    /// A finding at the key of `path`.
    pub(super) fn key(&self, path: &str, message: impl Into<String>, hint: Option<String>) -> Finding {
        let offset = self.keys.get(path).copied().unwrap_or_else(|| self.value_offset(path));
        self.at(offset, message.into(), hint)
    }
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
