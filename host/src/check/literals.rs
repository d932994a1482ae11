//! Literals in a recipe against the types that functions and options want.
use gpuhost_stdlib::core::units::{Duration, Size};
use rhai::{Expr, Position, Stmt};

/// A literal: its type word and how it reads.
pub struct Literal<'a> {
    /// `int`, `float`, `bool`, `string`, `array`, `Map`, `Fn`, `()`.
    pub ty: &'static str,
    /// As shown in messages.
    pub shown: String,
    /// The text of a string.
    pub text: Option<&'a str>,
}

/// The literal that an expression is, if it is one.
#[must_use]
pub fn literal(e: &Expr) -> Option<Literal<'_>> {
    let make = |ty, shown: String| Some(Literal { ty, shown, text: None });
    match e {
        Expr::IntegerConstant(n, _) => make("int", format!("`{n}`")),
        Expr::FloatConstant(f, _) => make("float", format!("`{f}`")),
        Expr::BoolConstant(b, _) => make("bool", format!("`{b}`")),
        Expr::StringConstant(s, _) => Some(Literal { ty: "string", shown: format!("`{s}`"), text: Some(s) }),
        Expr::InterpolatedString(..) => make("string", "a text".to_owned()),
        Expr::Array(..) => make("array", "a list".to_owned()),
        Expr::Map(..) => make("Map", "a map".to_owned()),
        Expr::Unit(_) => make("()", "`()`".to_owned()),
        e if closure(e).is_some() => make("Fn", "a function".to_owned()),
        _ => None,
    }
}

/// A number with a unit (`5.minutes`, `16.gib`) as people write it.
#[must_use]
pub fn measured(e: &Expr) -> Option<String> {
    let Expr::Dot(x, ..) = e else { return None };
    let (Expr::IntegerConstant(n, _), Expr::Property(p, _)) = (&x.lhs, &x.rhs) else { return None };
    let n = u64::try_from(*n).ok()?;
    let seconds = |each: u64| n.checked_mul(each).map(|s| Duration::secs(s).to_string());
    let bytes = |shift: u32| n.checked_mul(1 << shift).map(|b| Size(b).to_string());
    match p.2.as_str() {
        "seconds" => seconds(1),
        "minutes" => seconds(60),
        "hours" => seconds(3600),
        "days" => seconds(86_400),
        "mib" => bytes(20),
        "gib" => bytes(30),
        "tib" => bytes(40),
        _ => None,
    }
}

/// A closure: name of its function and the variables it captures, with their places.
#[must_use]
pub fn closure(e: &Expr) -> Option<(String, Vec<(String, Position)>)> {
    let of = |e: &Expr| match e {
        Expr::DynamicConstant(d, _) => d.clone().try_cast::<rhai::FnPtr>().map(|f| f.fn_name().to_owned()),
        _ => None,
    };
    if let Some(name) = of(e) {
        return Some((name, Vec::new()));
    }
    let Expr::Stmt(block) = e else { return None };
    let last = block.iter().last()?;
    let call = match last {
        Stmt::Expr(e) => match e.as_ref() {
            Expr::FnCall(c, _) => c,
            _ => return None,
        },
        Stmt::FnCall(c, _) => c,
        _ => return None,
    };
    if call.name != "curry" || !block.iter().any(|s| matches!(s, Stmt::Share(..))) {
        return None;
    }
    let name = of(call.args.first()?)?;
    let captured = call.args[1..].iter().filter_map(|a| match a {
        Expr::Variable(v, _, pos) => Some((v.1.to_string(), *pos)),
        _ => None,
    });
    Some((name, captured.collect()))
}

/// How a wanted type reads in a message.
fn wanted(ty: &str) -> String {
    match ty {
        "string" => "a text".to_owned(),
        "int" => "a whole number".to_owned(),
        "bool" => "`true` or `false`".to_owned(),
        "array" | "[string]" => "a list such as `[a, b]`".to_owned(),
        "Map" | "Map of strings" => "a map such as `#{ key: value }`".to_owned(),
        "Duration" => "a duration such as `5.minutes`".to_owned(),
        "Size" => "a size such as `16.gib`".to_owned(),
        "Fn" => "a function such as `|x| x`".to_owned(),
        other => format!("a `{other}`"),
    }
}

/// Whether a literal may be passed where a parameter of type `ty` is: `Err` says what was expected and found.
///
/// # Errors
/// The words after "expects".
pub fn fits_param(l: &Literal<'_>, ty: &str) -> Result<(), String> {
    let known = ["string", "int", "bool", "array", "Map", "Duration", "Size", "Fn", "Vm", "Node", "Host", "Cluster"];
    if ty == "any" || ty == l.ty || l.ty == "()" || !known.contains(&ty) {
        return Ok(());
    }
    Err(format!("{} here, found {}", wanted(ty), l.shown))
}

/// Whether a literal may be the value of an option of type `ty`.
///
/// # Errors
/// The words after the option's name.
pub fn fits_option(l: &Literal<'_>, ty: &str) -> Result<(), String> {
    let bad = || Err(format!("expected {}, found {}", wanted(ty), l.shown));
    match ty {
        "Duration" => match (l.ty, l.text) {
            ("string", Some(t)) => Duration::parse(t).map(|_| ()),
            ("string" | "()", _) => Ok(()),
            _ => bad(),
        },
        "Size" => match (l.ty, l.text) {
            ("string", Some(t)) => Size::parse(t).map(|_| ()),
            ("string" | "()", _) => Ok(()),
            _ => bad(),
        },
        "int" | "string" | "bool" | "Map" | "array" | "Fn" if l.ty != ty && l.ty != "()" => bad(),
        "[string]" if l.ty != "array" && l.ty != "()" => bad(),
        "Map of strings" if l.ty != "Map" && l.ty != "()" => bad(),
        _ => Ok(()),
    }
}
