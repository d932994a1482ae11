//! Settings that come as rows with an id: one way to list, make, read, change and remove them.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props::{Prop, Ty};
use serde::Serialize;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::params::{Params, delete, digest as digest_param, req};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::state::{Pve, Row};
use crate::world::World;

/// A kind of rows. In the messages `{}` stands for the id.
pub struct Section {
    /// Table in the world.
    pub table: &'static str,
    /// The parameter that holds the id.
    pub key: Prop,
    /// Other settings, required ones included.
    pub fields: &'static [Prop],
    /// Path and privileges of reading.
    pub read: (&'static str, &'static str),
    /// Path and privileges of changing.
    pub write: (&'static str, &'static str),
    /// When the id is taken.
    pub exists: &'static str,
    /// When a row that is read or changed is missing.
    pub missing: &'static str,
    /// When a row that is removed is missing; empty: that is fine.
    pub gone: &'static str,
    /// Settings that a new row has from the start.
    pub fixed: &'static [(&'static str, &'static str)],
}

/// SHA-1 of anything that is saved.
#[must_use]
pub fn digest(of: &impl Serialize) -> String {
    let text = serde_json::to_string(of).unwrap_or_default();
    Sha1::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// The JSON value of a parameter: numbers and booleans are numbers.
#[must_use]
pub fn typed(ty: Ty, text: &str) -> Value {
    match ty {
        Ty::Bool | Ty::Int => text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n)),
        Ty::Num => text.parse::<f64>().map_or_else(|_| json!(text), |n| json!(n)),
        Ty::Str => json!(text),
    }
}

/// Copies the given parameters into a row and drops those named in `delete`.
///
/// # Errors
/// `400` when `delete` names something unknown.
pub fn fill(row: &mut Row, params: &Params, fields: &[Prop]) -> Result<(), ApiError> {
    for f in fields {
        match params.0.get(f.name) {
            Some(Value::Array(list)) => {
                row.insert(f.name.to_owned(), json!(list));
            }
            Some(_) => {
                row.insert(f.name.to_owned(), typed(f.ty, &params.text(f.name)));
            }
            None => {}
        }
    }
    for k in params.split("delete") {
        if !fields.iter().any(|f| f.name == k) {
            return Err(ApiError::param("delete", format!("unknown option '{k}'")));
        }
        row.remove(&k);
    }
    Ok(())
}

/// Refuses a change of something that has changed since it was read.
///
/// # Errors
/// The server's message.
pub fn unchanged(params: &Params, now: &str) -> Result<(), ApiError> {
    match params.get("digest") {
        Some(d) if d != now => {
            Err(ApiError::fail("detected modified configuration - file changed by other user? Try again."))
        }
        _ => Ok(()),
    }
}

impl Pve {
    /// The rows of a table.
    #[must_use]
    pub fn table(&self, name: &str) -> &BTreeMap<String, Row> {
        static NONE: BTreeMap<String, Row> = BTreeMap::new();
        self.tables.get(name).unwrap_or(&NONE)
    }

    /// Puts a row into a table.
    pub fn put_row(&mut self, table: &str, id: &str, row: Row) {
        self.tables.entry(table.to_owned()).or_default().insert(id.to_owned(), row);
    }

    /// Takes a row out of a table; empty tables vanish.
    pub fn drop_row(&mut self, table: &str, id: &str) -> Option<Row> {
        let rows = self.tables.get_mut(table)?;
        let row = rows.remove(id);
        if rows.is_empty() {
            self.tables.remove(table);
        }
        row
    }
}

impl Section {
    fn view(&self, id: &str, row: &Row, digest: &str) -> Value {
        let mut v = json!({ self.key.name: id });
        for (k, x) in row {
            v[k] = x.clone();
        }
        v["digest"] = json!(digest);
        v
    }

    /// All rows as the list shows them.
    #[must_use]
    pub fn rows(&self, w: &World) -> Vec<Value> {
        let rows = w.pve.table(self.table);
        let digest = digest(rows);
        rows.iter().map(|(id, row)| self.view(id, row, &digest)).collect()
    }

    /// `GET` of the list.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn list(&self, w: &World, c: &Call) -> Reply {
        self.may(w, c, self.read)?;
        data(self.rows(w))
    }

    /// `POST`: checks everything and makes a row; `more` may refuse or complete it.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn create(
        &self,
        w: &mut World,
        c: &Call,
        more: impl FnOnce(&World, &str, &mut Row) -> Result<(), ApiError>,
    ) -> Reply {
        self.may(w, c, self.write)?;
        let mut spec = vec![req(self.key)];
        spec.extend_from_slice(self.fields);
        c.params.check(&spec)?;
        let id = c.params.text(self.key.name);
        let mut row: Row = self.fixed.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        fill(&mut row, &c.params, self.fields)?;
        if w.pve.table(self.table).contains_key(&id) {
            return Err(ApiError::fail(self.exists.replace("{}", &id)));
        }
        more(w, &id, &mut row)?;
        w.pve.put_row(self.table, &id, row);
        null()
    }

    /// `GET` of one row.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn get(&self, w: &World, c: &Call, id: &str) -> Reply {
        self.may(w, c, self.read)?;
        c.params.check(&[])?;
        let rows = w.pve.table(self.table);
        let row = rows.get(id).ok_or_else(|| ApiError::fail(self.missing.replace("{}", id)))?;
        data(self.view(id, row, &digest(rows)))
    }

    /// `PUT`: changes a row; `more` may refuse it.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn update(
        &self,
        w: &mut World,
        c: &Call,
        id: &str,
        more: impl FnOnce(&World, &str, &mut Row) -> Result<(), ApiError>,
    ) -> Reply {
        self.may(w, c, self.write)?;
        let mut spec: Vec<Prop> = self.fields.iter().map(|f| Prop { required: false, ..*f }).collect();
        spec.extend([digest_param(), delete()]);
        c.params.check(&spec)?;
        let rows = w.pve.table(self.table);
        unchanged(&c.params, &digest(rows))?;
        let row = rows.get(id).cloned();
        let mut row = row.ok_or_else(|| ApiError::fail(self.missing.replace("{}", id)))?;
        fill(&mut row, &c.params, self.fields)?;
        more(w, id, &mut row)?;
        w.pve.put_row(self.table, id, row);
        null()
    }

    /// `DELETE` of one row.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn remove(&self, w: &mut World, c: &Call, id: &str) -> Reply {
        self.may(w, c, self.write)?;
        if !c.params.checked() {
            c.params.check(&[])?;
        }
        match w.pve.drop_row(self.table, id) {
            None if !self.gone.is_empty() => Err(ApiError::fail(self.gone.replace("{}", id))),
            _ => null(),
        }
    }

    fn may(&self, w: &World, c: &Call, (path, privs): (&str, &str)) -> Result<(), ApiError> {
        w.pve.need(c.who()?, path, privs)
    }
}
