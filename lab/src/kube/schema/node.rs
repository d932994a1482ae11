//! A place in a schema: built-in definitions and custom schemas are walked the same way.
use serde_json::Value;

use super::{Kind, builtin};

/// How a list merges.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind<'a> {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects that these fields identify.
    Map(Vec<&'a str>),
}

/// A place in a schema; without one everything is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    schema: Option<&'a Value>,
    root: bool,
    custom: bool,
}

/// What a field of an object is.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    /// A declared field.
    Known(Node<'a>),
    /// An entry of a map.
    Entry(Node<'a>),
    /// Not declared.
    Unknown,
}

fn resolve(mut schema: &Value) -> &Value {
    for _ in 0..8 {
        let target = schema.get("$ref").or_else(|| schema["allOf"].get(0).and_then(|s| s.get("$ref")));
        let Some(name) = target.and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) else { break };
        let Some(def) = builtin::definition(name) else { break };
        schema = def;
    }
    schema
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl<'a> Node<'a> {
    /// The root of a kind.
    #[must_use]
    pub fn of(kind: &'a Kind) -> Node<'a> {
        let schema = if kind.custom { kind.schema.as_deref() } else { builtin::definition(&kind.type_name) };
        Node { schema, root: kind.custom, custom: kind.custom }
    }

    /// A node without a schema.
    #[must_use]
    pub const fn any() -> Node<'static> {
        Node { schema: None, root: false, custom: false }
    }

    /// Node of a schema value.
    #[must_use]
    pub fn new(schema: &'a Value) -> Node<'a> {
        Node { schema: Some(schema), root: false, custom: false }
    }

    /// A place below this one.
    fn below(&self, schema: &'a Value) -> Node<'a> {
        Node { schema: Some(schema), root: false, custom: self.custom }
    }

    /// Whether the place belongs to a custom kind: no Go struct writes its fields.
    #[must_use]
    pub fn custom(&self) -> bool {
        self.custom
    }

    /// The schema itself, references followed.
    #[must_use]
    pub fn schema(&self) -> Option<&'a Value> {
        self.schema.map(resolve)
    }

    fn get(&self, key: &str) -> &'a Value {
        let Some(s) = self.schema else { return &Value::Null };
        match &s[key] {
            Value::Null => &resolve(s)[key],
            v => v,
        }
    }

    /// Whether nothing is declared here.
    #[must_use]
    pub fn open(&self) -> bool {
        self.schema.is_none()
            || self.get("x-kubernetes-preserve-unknown-fields") == true && !self.get("properties").is_object()
            || !self.root
                && !self.get("properties").is_object()
                && self.get("additionalProperties").is_null()
                && !self.get("items").is_object()
                && match self.get("type").as_str() {
                    None => true,
                    // an object of a custom kind that declares no fields has none
                    Some("object") => !self.custom,
                    Some(_) => false,
                }
    }

    /// A field of the object at this place.
    #[must_use]
    pub fn field(&self, name: &str) -> Field<'a> {
        if self.root {
            match name {
                "apiVersion" | "kind" => return Field::Known(Node::any()),
                "metadata" => {
                    return Field::Known(Node { schema: builtin::definition(META), root: false, custom: false });
                }
                _ if self.schema.is_none() => return Field::Known(Node::any()),
                _ => {}
            }
        }
        if let Some(p) = self.get("properties").get(name) {
            return Field::Known(self.below(p));
        }
        match self.get("additionalProperties") {
            Value::Object(_) => return Field::Entry(self.below(self.get("additionalProperties"))),
            Value::Bool(true) => return Field::Entry(Node::any()),
            _ => {}
        }
        if self.open() || self.get("x-kubernetes-preserve-unknown-fields") == true {
            return Field::Entry(Node::any());
        }
        if self.get("x-kubernetes-embedded-resource") == true && matches!(name, "apiVersion" | "kind" | "metadata") {
            return Field::Known(Node::any());
        }
        Field::Unknown
    }

    /// The node of a field, whatever it is.
    #[must_use]
    pub fn down(&self, name: &str) -> Node<'a> {
        match self.field(name) {
            Field::Known(n) | Field::Entry(n) => n,
            Field::Unknown => Node::any(),
        }
    }

    /// Items of the list at this place.
    #[must_use]
    pub fn items(&self) -> Node<'a> {
        match self.get("items") {
            v @ Value::Object(_) => self.below(v),
            _ => Node::any(),
        }
    }

    /// How the list at this place merges.
    #[must_use]
    pub fn list(&self) -> ListKind<'a> {
        match self.get("x-kubernetes-list-type").as_str() {
            Some("map") => ListKind::Map(
                self.get("x-kubernetes-list-map-keys")
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect(),
            ),
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        }
    }

    /// The key that strategic merge patches match items by, for lists they merge.
    #[must_use]
    pub fn merge_key(&self) -> Option<&'a str> {
        self.get("x-kubernetes-patch-merge-key").as_str()
    }

    /// Whether strategic merge patches merge this list of scalars.
    #[must_use]
    pub fn merges_scalars(&self) -> bool {
        self.get("x-kubernetes-patch-strategy") == "merge" && self.merge_key().is_none()
    }

    /// Whether the object at this place is replaced as a whole.
    #[must_use]
    pub fn atomic(&self) -> bool {
        self.get("x-kubernetes-map-type") == "atomic"
    }

    /// Name of the type that a reference at this place points to.
    #[must_use]
    pub fn type_name(&self) -> Option<&'a str> {
        let s = self.schema?;
        let target = s.get("$ref").or_else(|| s["allOf"].get(0).and_then(|s| s.get("$ref")));
        target.and_then(Value::as_str).and_then(|r| r.rsplit('/').next())
    }

    /// JSON type, when one is declared.
    #[must_use]
    pub fn kind(&self) -> Option<&'a str> {
        self.get("type").as_str()
    }

    /// `format`, when one is declared.
    #[must_use]
    pub fn format(&self) -> Option<&'a str> {
        self.get("format").as_str()
    }

    /// Allowed values, when they are listed.
    #[must_use]
    pub fn allowed(&self) -> Option<&'a Vec<Value>> {
        self.get("enum").as_array()
    }

    /// Required fields.
    #[must_use]
    pub fn required(&self) -> Vec<&'a str> {
        self.get("required").as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Any other keyword.
    #[must_use]
    pub fn word(&self, key: &str) -> &'a Value {
        self.get(key)
    }

    /// Whether the value is a Kubernetes quantity.
    #[must_use]
    pub fn quantity(&self) -> bool {
        self.schema
            .and_then(|s| s.get("$ref"))
            .and_then(Value::as_str)
            .is_some_and(|r| r.ends_with("resource.Quantity"))
    }

    /// Whether the value is an int-or-string.
    #[must_use]
    pub fn int_or_string(&self) -> bool {
        self.get("x-kubernetes-int-or-string") == true || self.format() == Some("int-or-string")
    }
}

/// The key of an item of a map-list as fieldsV1 writes it (`k:{"name":"c"}`), and for matching items.
#[must_use]
pub fn item_key(keys: &[&str], item: &Value) -> String {
    let mut m = serde_json::Map::new();
    let mut sorted: Vec<&str> = keys.to_vec();
    sorted.sort();
    for k in sorted {
        let v = match item.get(k) {
            Some(v) => v.clone(),
            None if k == "protocol" => "TCP".into(),
            None => continue,
        };
        m.insert(k.to_owned(), v);
    }
    format!("k:{}", Value::Object(m))
}
