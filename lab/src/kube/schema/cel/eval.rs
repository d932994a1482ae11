//! What a rule's tree comes to.
use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::parse::Expr;
use super::{library, places, times};

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The rule uses what is not here.
    Unknown,
    /// The evaluation failed, as CEL says it.
    Failed(String),
}

pub(super) type Out = Result<Value, Trouble>;

/// What names mean.
#[derive(Debug, Clone)]
pub struct Scope {
    names: Vec<(String, Value)>,
    /// `variables.NAME` of a policy, each with what it came to.
    variables: Vec<(String, Out)>,
}

pub(super) fn failed(text: impl Into<String>) -> Trouble {
    Trouble::Failed(text.into())
}

pub(super) fn overload() -> Trouble {
    failed("no such overload")
}

pub(super) fn same(a: &Value, b: &Value) -> bool {
    if let (Some(x), Some(y)) = (times::like(a, b), times::like(b, a)) {
        return x == y;
    }
    if let (Some(x), Some(y)) = (library::amount(a), library::amount(b)) {
        return x == y;
    }
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

pub(super) fn order(a: &Value, b: &Value) -> Result<Ordering, Trouble> {
    if let (Some(x), Some(y)) = (times::like(a, b), times::like(b, a)) {
        return Ok(x.cmp(&y));
    }
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x.as_f64().zip(y.as_f64()).and_then(|(x, y)| x.partial_cmp(&y)).ok_or_else(overload)
        }
        (Value::String(x), Value::String(y)) => Ok(x.cmp(y)),
        (Value::Bool(x), Value::Bool(y)) => Ok(x.cmp(y)),
        _ => Err(overload()),
    }
}

pub(super) fn sum(sign: &str, a: &Value, b: &Value) -> Out {
    if let Some(out) = times::sum(sign, a, b) {
        return out;
    }
    if let ("+", Value::String(x), Value::String(y)) = (sign, a, b) {
        return Ok(format!("{x}{y}").into());
    }
    if let ("+", Value::Array(x), Value::Array(y)) = (sign, a, b) {
        return Ok(x.iter().chain(y).cloned().collect());
    }
    if let (Some(x), Some(y)) = (a.as_i64(), b.as_i64()) {
        let out = match sign {
            "+" => x.checked_add(y),
            "-" => x.checked_sub(y),
            "*" => x.checked_mul(y),
            _ if y == 0 => return Err(failed(if sign == "%" { "modulus by zero" } else { "division by zero" })),
            "/" => x.checked_div(y),
            _ => x.checked_rem(y),
        };
        return out.map(Value::from).ok_or_else(|| failed("integer overflow"));
    }
    match (sign, a.as_f64(), b.as_f64()) {
        ("+", Some(x), Some(y)) => Ok(json!(x + y)),
        ("-", Some(x), Some(y)) => Ok(json!(x - y)),
        ("*", Some(x), Some(y)) => Ok(json!(x * y)),
        ("/", Some(x), Some(y)) => Ok(json!(x / y)),
        _ => Err(overload()),
    }
}

fn size(v: &Value) -> Out {
    match v {
        Value::String(s) => Ok(s.chars().count().into()),
        Value::Array(a) => Ok(a.len().into()),
        Value::Object(m) => Ok(m.len().into()),
        _ => Err(overload()),
    }
}

fn shown(v: &Value) -> Out {
    match v {
        Value::String(_) => Ok(v.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(v.to_string().into()),
        _ => times::shown(v).or_else(|| places::shown(v)).map(Value::from).ok_or_else(overload),
    }
}

/// Names of types, which are values, too.
const KINDS: &[&str] = &["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type"];
const TYPE: &str = "\u{0}type:";

/// The type of a value, as a value.
fn kind(v: &Value) -> String {
    let name = match v {
        Value::Null => "null_type",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "double",
        Value::Number(_) => "int",
        Value::String(s) if s.starts_with(TYPE) => "type",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    };
    format!("{TYPE}{name}")
}

impl Scope {
    /// `self`, and `oldSelf` where there is one.
    #[must_use]
    pub fn new(own: &Value, old: Option<&Value>) -> Scope {
        let mut all = vec![("self".to_owned(), own.clone())];
        all.extend(old.map(|o| ("oldSelf".to_owned(), o.clone())));
        Scope::of(all)
    }

    /// These names.
    #[must_use]
    pub fn of(names: Vec<(String, Value)>) -> Scope {
        Scope { names, variables: Vec::new() }
    }

    /// Adds a variable of a policy: it is worked out here, and heard of where it is used.
    pub fn declare(&mut self, name: &str, expression: &str) {
        let found = super::evaluate(expression, self);
        self.variables.push((name.to_owned(), found));
    }

    pub(super) fn with(&self, name: &str, v: &Value) -> Scope {
        let mut scope = self.clone();
        scope.names.push((name.to_owned(), v.clone()));
        scope
    }

    fn variable(&self, name: &str) -> Out {
        match self.variables.iter().rev().find(|(k, _)| k == name) {
            None => Err(failed(format!("no such key: {name}"))),
            Some((_, Err(Trouble::Failed(why)))) => {
                Err(failed(format!("composited variable \"{name}\" fails to evaluate: {why}")))
            }
            Some((_, found)) => found.clone(),
        }
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// When it has none.
    pub fn eval(&self, e: &Expr) -> Out {
        match e {
            Expr::Literal(v) => Ok(v.clone()),
            Expr::Name(n) => match self.names.iter().rev().find(|(k, _)| k == n) {
                Some((_, v)) => Ok(v.clone()),
                None if KINDS.contains(&n.as_str()) => Ok(json!(format!("{TYPE}{n}"))),
                None => Err(Trouble::Unknown),
            },
            Expr::Field(of, name) if matches!(&**of, Expr::Name(n) if n == "variables") => self.variable(name),
            Expr::Field(of, name) => {
                let of = self.eval(of)?;
                match library::optional(&of) {
                    Some(inner) => Ok(library::maybe(inner.and_then(|v| v.get(name)))),
                    None => of.get(name).cloned().ok_or_else(|| failed(format!("no such key: {name}"))),
                }
            }
            Expr::Maybe(of, name) => {
                let of = self.eval(of)?;
                let inner = library::optional(&of).unwrap_or(Some(&of));
                Ok(library::maybe(inner.and_then(|v| v.get(name))))
            }
            Expr::Index(of, i) => self.at(of, i),
            Expr::Not(e) => self.truth(e).map(|b| (!b).into()),
            Expr::Negative(e) => sum("-", &json!(0), &self.eval(e)?),
            Expr::List(l) => l.iter().map(|e| self.eval(e)).collect::<Result<Vec<_>, _>>().map(Value::Array),
            Expr::Map(l) => {
                let mut m = Map::new();
                for (k, v) in l {
                    let k = self.eval(k)?;
                    m.insert(k.as_str().ok_or_else(overload)?.to_owned(), self.eval(v)?);
                }
                Ok(m.into())
            }
            Expr::Choice(when, yes, no) => self.eval(if self.truth(when)? { yes } else { no }),
            Expr::Binary(sign, a, b) => self.binary(sign, a, b),
            Expr::Call(None, name, args) => self.function(name, args),
            Expr::Call(Some(on), name, args) => self.method(on, name, args),
        }
    }

    fn truth(&self, e: &Expr) -> Result<bool, Trouble> {
        self.eval(e)?.as_bool().ok_or_else(overload)
    }

    fn at(&self, of: &Expr, i: &Expr) -> Out {
        let i = self.eval(i)?;
        match self.eval(of)? {
            Value::Object(mut m) => {
                let k = i.as_str().ok_or_else(overload)?;
                m.shift_remove(k).ok_or_else(|| failed(format!("no such key: {k}")))
            }
            Value::Array(a) => {
                let n = i.as_u64().and_then(|n| usize::try_from(n).ok());
                n.and_then(|n| a.get(n).cloned()).ok_or_else(|| failed(format!("index out of bounds: {i}")))
            }
            _ => Err(overload()),
        }
    }

    fn binary(&self, sign: &str, a: &Expr, b: &Expr) -> Out {
        if matches!(sign, "&&" | "||") {
            // Either side alone may decide, whatever becomes of the other.
            let stops = sign == "||";
            return match (self.truth(a), self.truth(b)) {
                (Ok(x), _) | (_, Ok(x)) if x == stops => Ok(stops.into()),
                (Ok(_), Ok(_)) => Ok((!stops).into()),
                (Err(e), _) | (_, Err(e)) => Err(e),
            };
        }
        let (a, b) = (self.eval(a)?, self.eval(b)?);
        match sign {
            "==" => Ok(same(&a, &b).into()),
            "!=" => Ok((!same(&a, &b)).into()),
            "<" => Ok(order(&a, &b)?.is_lt().into()),
            "<=" => Ok(order(&a, &b)?.is_le().into()),
            ">" => Ok(order(&a, &b)?.is_gt().into()),
            ">=" => Ok(order(&a, &b)?.is_ge().into()),
            "in" => match &b {
                Value::Array(l) => Ok(l.iter().any(|x| same(x, &a)).into()),
                Value::Object(m) => Ok(a.as_str().is_some_and(|k| m.contains_key(k)).into()),
                _ => Err(overload()),
            },
            _ => sum(sign, &a, &b),
        }
    }

    fn function(&self, name: &str, args: &[Expr]) -> Out {
        match (name, args) {
            ("has", [Expr::Field(of, field)]) => {
                let of = self.eval(of)?;
                let of = library::optional(&of).unwrap_or(Some(&of));
                Ok(of.is_some_and(|v| v.get(field).is_some()).into())
            }
            ("size", [v]) => size(&self.eval(v)?),
            ("string", [v]) => shown(&self.eval(v)?),
            ("int", [v]) => match self.eval(v)? {
                Value::String(s) => s
                    .parse::<i64>()
                    .map(Value::from)
                    .map_err(|_| failed("type conversion error from 'string' to 'int'")),
                v if times::time(&v).is_some() => {
                    let seconds = times::time(&v).unwrap_or(0).div_euclid(1_000_000_000);
                    Ok(i64::try_from(seconds).unwrap_or(i64::MAX).into())
                }
                v => v.as_f64().map(|f| (f as i64).into()).ok_or_else(overload),
            },
            ("double", [v]) => match self.eval(v)? {
                Value::String(s) => s
                    .parse::<f64>()
                    .map(|f| json!(f))
                    .map_err(|_| failed("type conversion error from 'string' to 'double'")),
                v => v.as_f64().map(|f| json!(f)).ok_or_else(overload),
            },
            ("uint", [v]) => match self.eval(v)? {
                Value::String(s) => s
                    .parse::<u64>()
                    .map(|n| json!(n))
                    .map_err(|_| failed("type conversion error from 'string' to 'uint'")),
                v => v.as_u64().map(|n| json!(n)).ok_or_else(overload),
            },
            ("type", [v]) => Ok(json!(kind(&self.eval(v)?))),
            ("dyn", [v]) => self.eval(v),
            _ => {
                let args: Vec<Value> = args.iter().map(|e| self.eval(e)).collect::<Result<_, _>>()?;
                library::function(name, &args)
            }
        }
    }

    fn method(&self, on: &Expr, name: &str, args: &[Expr]) -> Out {
        if let [Expr::Name(var), body] = args
            && matches!(name, "all" | "exists" | "exists_one" | "filter" | "map" | "optMap")
        {
            let own = self.eval(on)?;
            if name == "optMap" {
                let inner = library::optional(&own).ok_or_else(overload)?;
                let mapped = inner.map(|v| self.with(var, v).eval(body)).transpose()?;
                return Ok(library::maybe(mapped.as_ref()));
            }
            return self.over(&own, name, var, body);
        }
        if let (Expr::Name(space), "bind", [Expr::Name(var), value, body]) = (on, name, args)
            && space == "cel"
        {
            return self.with(var, &self.eval(value)?).eval(body);
        }
        if let [Expr::Name(first), Expr::Name(second), more @ ..] = args
            && !more.is_empty()
            && matches!(name, "all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap")
        {
            return self.over_two(&self.eval(on)?, name, (first, second), more);
        }
        if let ([Expr::Name(var), when, body], "map") = (args, name) {
            let Value::Array(hits) = self.over(&self.eval(on)?, "filter", var, when)? else { return Err(overload()) };
            return self.over(&Value::Array(hits), "map", var, body);
        }
        if let Expr::Name(space) = on
            && matches!(
                space.as_str(),
                "sets" | "optional" | "math" | "format" | "ip" | "base64" | "strings" | "jsonpatch"
            )
            && !self.names.iter().any(|(k, _)| k == space)
        {
            let args: Vec<Value> = args.iter().map(|e| self.eval(e)).collect::<Result<_, _>>()?;
            return library::function(&format!("{space}.{name}"), &args);
        }
        let own = self.eval(on)?;
        let args: Vec<Value> = args.iter().map(|e| self.eval(e)).collect::<Result<_, _>>()?;
        match (name, &own, &args[..]) {
            ("size", v, []) => size(v),
            ("startsWith", Value::String(s), [Value::String(x)]) => Ok(s.starts_with(x.as_str()).into()),
            ("endsWith", Value::String(s), [Value::String(x)]) => Ok(s.ends_with(x.as_str()).into()),
            ("contains", Value::String(s), [Value::String(x)]) => Ok(s.contains(x.as_str()).into()),
            ("matches", Value::String(s), [Value::String(x)]) => match regex::Regex::new(x) {
                Ok(r) => Ok(r.is_match(s).into()),
                Err(_) => Err(Trouble::Unknown),
            },
            ("lowerAscii", Value::String(s), []) => Ok(s.to_ascii_lowercase().into()),
            ("upperAscii", Value::String(s), []) => Ok(s.to_ascii_uppercase().into()),
            ("trim", Value::String(s), []) => Ok(s.trim().into()),
            ("split", Value::String(s), [Value::String(x)]) => Ok(s.split(x.as_str()).collect::<Vec<_>>().into()),
            ("join", Value::Array(a), [Value::String(x)]) => {
                Ok(a.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(x).into())
            }
            ("isSorted", Value::Array(a), []) => {
                a.windows(2).try_fold(true, |ok, w| Ok(ok && order(&w[0], &w[1])?.is_le())).map(Value::from)
            }
            ("sum", Value::Array(a), []) => a.iter().try_fold(json!(0), |n, x| sum("+", &n, x)),
            ("min" | "max", Value::Array(a), []) => {
                let mut best = a.first().cloned().ok_or_else(|| failed("min/max called on empty list"))?;
                for x in &a[1..] {
                    let o = order(x, &best)?;
                    if if name == "min" { o.is_lt() } else { o.is_gt() } {
                        best = x.clone();
                    }
                }
                Ok(best)
            }
            _ => library::method(name, &own, &args),
        }
    }

    /// The macros with two variables: index or key, and value.
    fn over_two(&self, own: &Value, name: &str, (first, second): (&str, &str), body: &[Expr]) -> Out {
        let pairs: Vec<(Value, Value)> = match own {
            Value::Array(a) => a.iter().enumerate().map(|(i, v)| (i.into(), v.clone())).collect(),
            Value::Object(m) => m.iter().map(|(k, v)| (k.as_str().into(), v.clone())).collect(),
            _ => return Err(overload()),
        };
        let (when, last) = match body {
            [when, last] => (Some(when), last),
            [last] => (None, last),
            _ => return Err(Trouble::Unknown),
        };
        let mut hits = Vec::new();
        for (k, v) in &pairs {
            let scope = self.with(first, k).with(second, v);
            if let Some(when) = when
                && !scope.truth(when)?
            {
                continue;
            }
            hits.push((k.clone(), scope.eval(last)?));
        }
        let yes = hits.iter().filter(|h| h.1 == true).count();
        Ok(match name {
            "all" => (yes == pairs.len()).into(),
            "exists" => (yes > 0).into(),
            "existsOne" | "exists_one" => (yes == 1).into(),
            "transformList" => hits.into_iter().map(|h| h.1).collect(),
            _ => hits.into_iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v))).collect::<Map<_, _>>().into(),
        })
    }

    /// The macros: over the items of a list, or the keys of a map.
    fn over(&self, own: &Value, name: &str, var: &str, body: &Expr) -> Out {
        let items: Vec<Value> = match own {
            Value::Array(a) => a.clone(),
            Value::Object(m) => m.keys().map(|k| k.as_str().into()).collect(),
            _ => return Err(overload()),
        };
        if name == "map" {
            return items.iter().map(|x| self.with(var, x).eval(body)).collect::<Result<Vec<_>, _>>().map(Value::Array);
        }
        let mut hits = Vec::new();
        for x in &items {
            if self.with(var, x).truth(body)? {
                hits.push(x.clone());
            }
        }
        Ok(match name {
            "all" => (hits.len() == items.len()).into(),
            "exists" => (!hits.is_empty()).into(),
            "exists_one" => (hits.len() == 1).into(),
            _ => Value::Array(hits),
        })
    }
}
