//! The OpenAPI v2 document in the protobuf form of gnostic, which kubectl and helm read it in.
use serde_json::{Map, Value};

/// The media type that clients ask for.
pub const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The media type of the answer.
pub const TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n > 0x7f {
            self.0.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn bytes(&mut self, field: u64, b: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(b.len() as u64);
        self.0.extend_from_slice(b);
    }

    fn sub(&mut self, field: u64, m: Message) {
        self.bytes(field, &m.0);
    }

    fn text(&mut self, field: u64, v: &Value) {
        if let Some(s) = v.as_str() {
            self.bytes(field, s.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, v: &Value) {
        v.as_array().into_iter().flatten().for_each(|s| self.text(field, s));
    }

    fn truth(&mut self, field: u64, v: &Value) {
        if v == true {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn whole(&mut self, field: u64, v: &Value) {
        if let Some(n) = v.as_u64() {
            self.varint(field << 3);
            self.varint(n);
        }
    }

    fn decimal(&mut self, field: u64, v: &Value) {
        if let Some(n) = v.as_f64() {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&n.to_le_bytes());
        }
    }

    /// Any value, as YAML.
    fn any(&mut self, field: u64, v: &Value) {
        if !v.is_null() {
            let mut m = Message::default();
            m.bytes(2, format!("{v}\n").as_bytes());
            self.sub(field, m);
        }
    }

    /// Pairs of a name and a message.
    fn named(&mut self, field: u64, all: &Value, each: fn(&Value) -> Message) {
        for (k, v) in all.as_object().into_iter().flatten() {
            let mut m = Message::default();
            m.bytes(1, k.as_bytes());
            m.sub(2, each(v));
            self.sub(field, m);
        }
    }

    /// The keys that begin with `x-`.
    fn extensions(&mut self, field: u64, v: &Value) {
        for (k, v) in v.as_object().into_iter().flatten().filter(|(k, _)| k.starts_with("x-")) {
            let mut m = Message::default();
            m.bytes(1, k.as_bytes());
            m.any(2, v);
            self.sub(field, m);
        }
    }
}

/// The document as protobuf.
#[must_use]
pub fn encode(doc: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &doc["swagger"]);
    let mut info = Message::default();
    info.text(1, &doc["info"]["title"]);
    info.text(2, &doc["info"]["version"]);
    out.sub(2, info);
    let mut paths = Message::default();
    paths.named(2, &doc["paths"], path);
    out.sub(8, paths);
    let mut definitions = Message::default();
    definitions.named(1, &doc["definitions"], schema);
    out.sub(9, definitions);
    out.0
}

fn path(v: &Value) -> Message {
    let mut out = Message::default();
    for (name, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if v[name].is_object() {
            out.sub(field, operation(&v[name]));
        }
    }
    out
}

fn operation(v: &Value) -> Message {
    let mut out = Message::default();
    out.texts(6, &v["produces"]);
    out.texts(7, &v["consumes"]);
    for p in v["parameters"].as_array().into_iter().flatten() {
        let (mut item, mut one) = (Message::default(), Message::default());
        let mut m = Message::default();
        if p["in"] == "body" {
            m.text(2, &p["name"]);
            m.text(3, &p["in"]);
            m.sub(5, schema(&p["schema"]));
            one.sub(1, m);
        } else {
            m.text(2, &p["in"]);
            m.text(4, &p["name"]);
            m.text(6, &p["type"]);
            m.truth(20, &p["uniqueItems"]);
            let mut query = Message::default();
            query.sub(3, m);
            one.sub(2, query);
        }
        item.sub(1, one);
        out.sub(8, item);
    }
    let mut responses = Message::default();
    responses.named(1, &v["responses"], response);
    out.sub(9, responses);
    out.texts(10, &v["schemes"]);
    out.extensions(13, v);
    out
}

fn response(v: &Value) -> Message {
    let (mut out, mut value) = (Message::default(), Message::default());
    value.text(1, &v["description"]);
    if v["schema"].is_object() {
        let mut item = Message::default();
        item.sub(1, schema(&v["schema"]));
        value.sub(2, item);
    }
    out.sub(1, value);
    out
}

fn schema(v: &Value) -> Message {
    let mut out = Message::default();
    // A reference with a description of its own.
    let reference = v.get("$ref").or_else(|| v["allOf"].get(0).and_then(|s| s.get("$ref")));
    out.text(1, reference.unwrap_or(&Value::Null));
    out.text(2, &v["format"]);
    out.text(3, &v["title"]);
    out.text(4, &v["description"]);
    out.any(5, &v["default"]);
    out.decimal(6, &v["multipleOf"]);
    out.decimal(7, &v["maximum"]);
    out.truth(8, &v["exclusiveMaximum"]);
    out.decimal(9, &v["minimum"]);
    out.truth(10, &v["exclusiveMinimum"]);
    out.whole(11, &v["maxLength"]);
    out.whole(12, &v["minLength"]);
    out.text(13, &v["pattern"]);
    out.whole(14, &v["maxItems"]);
    out.whole(15, &v["minItems"]);
    out.truth(16, &v["uniqueItems"]);
    out.whole(17, &v["maxProperties"]);
    out.whole(18, &v["minProperties"]);
    out.texts(19, &v["required"]);
    v["enum"].as_array().into_iter().flatten().for_each(|e| out.any(20, e));
    match &v["additionalProperties"] {
        Value::Null => {}
        Value::Bool(b) => {
            let mut m = Message::default();
            m.varint(2 << 3);
            m.varint(u64::from(*b));
            out.sub(21, m);
        }
        s => {
            let mut m = Message::default();
            m.sub(1, schema(s));
            out.sub(21, m);
        }
    }
    if v["type"].is_string() {
        let mut m = Message::default();
        m.text(1, &v["type"]);
        out.sub(22, m);
    }
    if v["items"].is_object() {
        let mut m = Message::default();
        m.sub(1, schema(&v["items"]));
        out.sub(23, m);
    }
    if v["properties"].as_object().is_some_and(|p: &Map<String, Value>| !p.is_empty()) {
        let mut m = Message::default();
        m.named(1, &v["properties"], schema);
        out.sub(25, m);
    }
    out.extensions(31, v);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test stops at the first surprise
mod tests {
    use serde_json::json;

    /// The places in `bytes` where `part` begins.
    fn holds(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|w| w == part)
    }

    #[test]
    fn a_schema_has_its_fields_where_the_clients_look() {
        let doc = json!({"swagger": "2.0", "info": {"title": "t", "version": "v"}, "paths": {}, "definitions": {
            "a.B": {"type": "object", "properties": {"c": {"allOf": [{"$ref": "#/definitions/D"}]}},
                "additionalProperties": false, "x-y": [1]}}});
        let bytes = super::encode(&doc);
        assert!(bytes.starts_with(b"\x0a\x032.0\x12\x06\x0a\x01t\x12\x01v"));
        for part in [
            b"\x0a\x03a.B\x12".as_slice(),
            b"\xb2\x01\x08\x0a\x06object",
            b"\x0a\x01c\x12\x11\x0a\x0f#/definitions/D",
            b"\xaa\x01\x02\x10\x00",
            b"\xfa\x01\x0d\x0a\x03x-y\x12\x06\x12\x04[1]\n",
        ] {
            assert!(holds(&bytes, part), "{part:?} in {bytes:?}");
        }
    }
}
