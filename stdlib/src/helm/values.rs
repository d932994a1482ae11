//! Chart values from scripts: secrets inside them travel apart, in a Secret of their own.
use rhai::{Array, Dynamic, Map};
use serde_json::{Value, json};

use crate::core::error::{OpError, OpResult};
use crate::core::units::{Duration, Secret, Size};

/// Splits values into the plain part and the part that holds secrets.
///
/// # Errors
/// `invalid` for a value without a JSON form, or a secret inside a list.
pub fn split(values: &Map) -> OpResult<(Value, Option<Value>)> {
    let mut secret = json!({});
    let plain = plain_map(values, &mut secret)?;
    Ok((plain, secret.as_object().is_some_and(|m| !m.is_empty()).then_some(secret)))
}

/// Puts one value at its path (`image.tag`), over what is there.
///
/// # Errors
/// `invalid` for a path through something that is no map, or into a list.
pub fn set_value(values: &mut Map, path: &str, value: Dynamic) -> OpResult<()> {
    let bad = |why: &str| {
        OpError::invalid(format!("option `set`: `{path}` {why}"))
            .hint("a path names keys, with dots between them; lists are given whole in `values`")
    };
    let dotted = path.replace("\\.", "\0");
    let keys: Vec<String> = dotted.split('.').map(|k| k.replace('\0', ".")).collect();
    if keys.iter().any(|k| k.is_empty() || k.contains('[')) {
        return Err(bad("is no path"));
    }
    put(values, &keys, value).ok_or_else(|| bad("leads through a value that is no map"))
}

fn put(values: &mut Map, keys: &[String], value: Dynamic) -> Option<()> {
    let (first, rest) = keys.split_first()?;
    if rest.is_empty() {
        values.insert(first.as_str().into(), value);
        return Some(());
    }
    let mut below = match values.get(first.as_str()) {
        None => Map::new(),
        Some(v) => v.clone().flatten().try_cast::<Map>()?,
    };
    put(&mut below, rest, value)?;
    values.insert(first.as_str().into(), below.into());
    Some(())
}

fn plain_map(map: &Map, secret: &mut Value) -> OpResult<Value> {
    let mut out = serde_json::Map::new();
    for (k, v) in map {
        let v = v.clone().flatten();
        if let Some(s) = v.clone().try_cast::<Secret>() {
            secret[k.as_str()] = s.reveal().into();
        } else if let Some(inner) = v.clone().try_cast::<Map>() {
            let mut below = json!({});
            out.insert(k.to_string(), plain_map(&inner, &mut below)?);
            if below.as_object().is_some_and(|m| !m.is_empty()) {
                secret[k.as_str()] = below;
            }
        } else {
            out.insert(k.to_string(), plain(k, &v)?);
        }
    }
    Ok(Value::Object(out))
}

fn plain(key: &str, v: &Dynamic) -> OpResult<Value> {
    if let Some(list) = v.clone().try_cast::<Array>() {
        return list.iter().map(|x| plain(key, x)).collect::<OpResult<Vec<_>>>().map(Value::Array);
    }
    if let Some(map) = v.clone().try_cast::<Map>() {
        let mut below = json!({});
        let out = plain_map(&map, &mut below)?;
        return if below.as_object().is_some_and(|m| !m.is_empty()) { Err(in_list(key)) } else { Ok(out) };
    }
    if v.is::<Secret>() {
        return Err(in_list(key));
    }
    if let Some(d) = v.clone().try_cast::<Duration>() {
        return Ok(format!("{}s", d.0.as_secs()).into());
    }
    if let Some(s) = v.clone().try_cast::<Size>() {
        return Ok(if s.0 % (1 << 20) == 0 { format!("{}Mi", s.as_mib()).into() } else { s.0.into() });
    }
    rhai::serde::from_dynamic(v)
        .map_err(|e| OpError::invalid(format!("value `{key}` has no JSON form")).because(e.to_string()))
}

fn in_list(key: &str) -> OpError {
    OpError::invalid(format!("value `{key}`: a secret cannot stand inside a list")).hint(
        "lists are replaced as a whole: put it into a Secret with `cluster.ensure_secret` and name that in the values",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, Dynamic)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).into(), v.clone())).collect()
    }

    #[test]
    fn secrets_leave_the_plain_values() {
        let inner = map(&[("token", Dynamic::from(Secret::new("hunter2"))), ("port", Dynamic::from(1_i64))]);
        let v = map(&[("hub", inner.into()), ("wait", Dynamic::from(Duration::minutes(2)))]);
        let (plain, secret) = split(&v).unwrap();
        assert_eq!(plain, json!({"hub": {"port": 1}, "wait": "120s"}));
        assert_eq!(secret, Some(json!({"hub": {"token": "hunter2"}})));
        let mut v = map(&[("image", map(&[("tag", "1".into())]).into())]);
        set_value(&mut v, "image.tag", "2".into()).unwrap();
        set_value(&mut v, "notes.a\\.b", 3_i64.into()).unwrap();
        assert_eq!(split(&v).unwrap().0, json!({"image": {"tag": "2"}, "notes": {"a.b": 3}}));
        assert!(
            set_value(&mut v, "image.tag.x", 1_i64.into()).is_err() && set_value(&mut v, "l[0]", 1_i64.into()).is_err()
        );
        let list = map(&[("l", Dynamic::from(vec![Dynamic::from(Secret::new("x"))]))]);
        assert!(split(&list).is_err());
    }
}
