//! What `-f` reads: files, folders and standard input, with any number of documents.
use serde_json::Value;

use super::super::Call;
use super::words::Words;
use crate::kube::api::gojson::printed;

/// A document and where it is from.
pub(super) struct Document {
    /// The name that `-f` gave, `STDIN` for `-`.
    pub from: String,
    /// The object.
    pub object: Value,
}

impl Document {
    /// What kubectl says of a kind that the server does not have.
    pub fn unmapped(&self) -> String {
        let text = |p: &str| self.object.pointer(p).and_then(Value::as_str).unwrap_or_default();
        let (name, ns, from) = (text("/metadata/name"), text("/metadata/namespace"), &self.from);
        let what = format!("no matches for kind \"{}\" in version \"{}\"", text("/kind"), text("/apiVersion"));
        format!(
            "error: resource mapping not found for name: \"{name}\" namespace: \"{ns}\" from \"{from}\": {what}\nensure CRDs are installed first"
        )
    }
}

/// The documents of all `-f`, which say what they are; `Ok(None)` when one of them is at an address of the network.
/// `validated` is for commands that look at the whole object before they send it.
pub(super) async fn documents(c: &mut Call, w: &Words, validated: bool) -> Result<Option<Vec<Document>>, i32> {
    let mut out = Vec::new();
    let names: Vec<String> = w.all("filename").flat_map(|f| f.split(',')).map(str::to_owned).collect();
    for name in names {
        if name.starts_with("http://") || name.starts_with("https://") {
            return Ok(None);
        }
        if name == "-" {
            let text = c.read_all().await;
            parse(c, "STDIN", &text, validated, &mut out)?;
            continue;
        }
        for (path, text) in texts(c, &name, w.on("recursive"))? {
            parse(c, &path, &text, validated, &mut out)?;
        }
    }
    Ok(Some(out))
}

/// A file, or what a folder has with the endings that kubectl reads.
fn texts(c: &mut Call, name: &str, below: bool) -> Result<Vec<(String, Vec<u8>)>, i32> {
    let (who, path) = (c.who.clone(), c.path(name));
    let files = c.m.files.clone();
    let Ok(node) = files.stat(&who, &path, true) else {
        let text = format!("error: the path \"{name}\" does not exist");
        return Err(c.fail(1, &text));
    };
    if !node.is_dir() {
        return match files.read(&who, &path) {
            Ok(b) => Ok(vec![(name.to_owned(), b.to_vec())]),
            Err(_) => {
                let text = format!("error: open {name}: permission denied");
                Err(c.fail(1, &text))
            }
        };
    }
    let mut out = Vec::new();
    for (entry, node) in files.list(&who, &path).unwrap_or_default() {
        let inner = format!("{}/{entry}", name.trim_end_matches('/'));
        let read = [".yaml", ".yml", ".json"].iter().any(|e| entry.ends_with(e));
        if (node.is_dir() && below) || (!node.is_dir() && read) {
            out.extend(texts(c, &inner, below)?);
        }
    }
    Ok(out)
}

fn parse(c: &mut Call, from: &str, text: &[u8], validated: bool, out: &mut Vec<Document>) -> Result<(), i32> {
    let text = String::from_utf8_lossy(text);
    let read: Result<Vec<Value>, _> = match serde_json::from_str::<Value>(&text) {
        Ok(one) => Ok(vec![one]),
        Err(_) => serde_saphyr::from_multiple(&text),
    };
    let all = match read {
        Ok(all) => all,
        Err(e) => {
            let why = crate::kube::api::decode::yaml_trouble(&e.to_string());
            let text = format!("error: error parsing {from}: error converting YAML to JSON: {why}");
            return Err(c.fail(1, &text));
        }
    };
    for object in all.into_iter().filter(|o| !o.is_null()) {
        if let Some(why) = nameless(&object, validated) {
            let text = if validated {
                format!(
                    "error: error validating \"{from}\": error validating data: {why}; if you choose to ignore these errors, turn validation off with --validate=false"
                )
            } else {
                format!("error: unable to decode \"{from}\": {why}")
            };
            return Err(c.fail(1, &text));
        }
        match object["items"].as_array() {
            Some(items) if object["kind"].as_str().is_some_and(|k| k.ends_with("List")) => {
                out.extend(items.iter().map(|o| Document { from: from.to_owned(), object: o.clone() }));
            }
            _ => out.push(Document { from: from.to_owned(), object }),
        }
    }
    Ok(())
}

/// Why an object does not say what it is.
fn nameless(object: &Value, validated: bool) -> Option<String> {
    let lacks = |f: &str| object[f].as_str().is_none_or(str::is_empty);
    match (validated, lacks("apiVersion"), lacks("kind")) {
        (_, false, false) => None,
        (true, true, true) => Some("[apiVersion not set, kind not set]".to_owned()),
        (true, true, false) => Some("apiVersion not set".to_owned()),
        (true, false, true) => Some("kind not set".to_owned()),
        (false, _, true) => Some(format!("Object 'Kind' is missing in '{}'", shown(object))),
        (false, true, false) => Some(format!("Object 'apiVersion' is missing in '{}'", shown(object))),
    }
}

fn shown(v: &Value) -> String {
    if v.is_object() { v.to_string() } else { printed(v) }
}
