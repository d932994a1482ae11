//! Rules of custom schemas (`x-kubernetes-validations`): the part of CEL that such rules are written in. Grade: docs. A
//! rule that uses what is not here is not checked.
mod compile;
mod eval;
mod library;
mod parse;
mod places;
mod times;

use serde_json::Value;

pub use compile::{trouble, wrong};
pub use eval::{Scope, Trouble};
pub use parse::{Expr, parse};
pub use places::AUTHORIZER;

/// What a rule came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It holds, or is not one that the lab can check.
    Holds,
    /// It does not hold, or its evaluation failed with this text.
    Broken(Option<String>),
}

/// Whether a rule names the object as it was.
#[must_use]
pub fn compares(e: &Expr) -> bool {
    match e {
        Expr::Name(n) => n == "oldSelf",
        Expr::Literal(_) => false,
        Expr::Field(e, _) | Expr::Maybe(e, _) | Expr::Not(e) | Expr::Negative(e) => compares(e),
        Expr::Index(a, b) | Expr::Binary(_, a, b) => compares(a) || compares(b),
        Expr::Choice(a, b, c) => [a, b, c].iter().any(|e| compares(e)),
        Expr::List(l) => l.iter().any(compares),
        Expr::Map(l) => l.iter().any(|(k, v)| compares(k) || compares(v)),
        Expr::Call(on, _, args) => on.as_deref().is_some_and(compares) || args.iter().any(compares),
    }
}

/// Evaluates `rule` over an object and what it was; `maybe`: the old value is an optional one.
#[must_use]
pub fn check(rule: &str, own: &Value, old: Option<&Value>, maybe: bool) -> Verdict {
    let Ok(e) = parse(rule) else { return Verdict::Holds };
    if compares(&e) && old.is_none() && !maybe {
        return Verdict::Holds;
    }
    let before = if maybe { Some(library::maybe(old)) } else { old.cloned() };
    match Scope::new(own, before.as_ref()).eval(&e) {
        Ok(Value::Bool(true)) => Verdict::Holds,
        Ok(Value::Bool(false)) => Verdict::Broken(None),
        Ok(_) => Verdict::Holds,
        Err(eval::Trouble::Unknown) => Verdict::Holds,
        Err(eval::Trouble::Failed(text)) => Verdict::Broken(Some(text)),
    }
}

/// The text of a `messageExpression`.
#[must_use]
pub fn text(expression: &str, own: &Value, old: Option<&Value>) -> Option<String> {
    evaluate(expression, &Scope::new(own, old)).ok()?.as_str().map(str::to_owned)
}

/// The value of an expression.
///
/// # Errors
/// When it has none, or uses what is not here.
pub fn evaluate(expression: &str, scope: &Scope) -> Result<Value, Trouble> {
    scope.eval(&parse(expression).map_err(|_| Trouble::Unknown)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_as_they_are_written() {
        let own = json!({"min": 1, "max": 3, "name": "abc-1", "mode": "on", "list": ["a", "b"], "map": {"k": "v"},
            "ports": [{"name": "web", "port": 80}, {"name": "api", "port": 81}], "half": 0.5});
        for (rule, want) in [
            ("self.min <= self.max", true),
            ("self.min > self.max", false),
            ("self.max - self.min == 2 && self.max % 2 == 1", true),
            ("has(self.mode) && self.mode in ['on', 'off']", true),
            ("!has(self.nothing) || self.nothing > 1", true),
            ("size(self.list) == 2", true),
            ("self.list.size() < 2", false),
            ("self.name.startsWith('abc') && self.name.matches('^[a-z]+-[0-9]$')", true),
            ("self.list.all(x, x.size() == 1)", true),
            ("self.ports.exists(p, p.port == 81)", true),
            ("self.ports.exists_one(p, p.name == 'web')", true),
            ("self.ports.filter(p, p.port > 80).map(p, p.name) == ['api']", true),
            ("self.map['k'] == 'v' && 'k' in self.map", true),
            ("self.mode == 'on' ? self.max == 3 : false", true),
            ("self.half < 1.0 && -self.min == -1", true),
            ("self.list.exists(x, x == \"z\")", false),
            ("self.?nothing.orValue('x') == 'x' && self.?name.hasValue()", true),
            ("self.?map.k.orValue('') == 'v' // a remark", true),
            (
                "quantity('1Gi').isGreaterThan(quantity('500Mi')) && quantity('1500m').compareTo(quantity('1')) == 1",
                true,
            ),
            ("'%s has %d'.format([self.name, self.max]) == 'abc-1 has 3'", true),
            ("sets.contains(self.list, ['b']) && !sets.intersects(self.list, ['c'])", true),
            ("self.name.substring(0, 3).replace('b', 'x') == 'axc' && self.name.find('[0-9]') == '1'", true),
            (r"self.name.matches(r'^abc-\d$')", true),
        ] {
            let want = if want { Verdict::Holds } else { Verdict::Broken(None) };
            assert_eq!(check(rule, &own, None, false), want, "{rule}");
        }
        assert_eq!(check("self.gone == 1", &own, None, false), Verdict::Broken(Some("no such key: gone".into())));
        // transition rules wait for a change
        assert_eq!(check("self == oldSelf", &json!(1), None, false), Verdict::Holds);
        assert_eq!(check("self == oldSelf", &json!(1), Some(&json!(2)), false), Verdict::Broken(None));
        assert_eq!(text("'max is ' + string(self.max)", &own, None).as_deref(), Some("max is 3"));
        // what is not known here is not judged
        assert_eq!(check("self.name.unheardOf()", &own, None, false), Verdict::Holds);
        let why = "type conversion error from 'string' to 'google.protobuf.Timestamp'";
        let broken = Verdict::Broken(Some(why.into()));
        assert_eq!(check("timestamp(self.name) == timestamp(self.name)", &own, None, false), broken);
    }

    #[test]
    fn libraries_are_worked_out() {
        let own = json!({"map": {"k": "v"}});
        for rule in [
            "timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026 && timestamp('2026-01-02T03:04:05Z') > timestamp('2025-01-01T00:00:00Z')",
            "duration('90m').getHours() == 1 && duration('1h') + duration('30m') == duration('90m')",
            "timestamp('2026-01-01T00:00:00Z') + duration('24h') == timestamp('2026-01-02T00:00:00Z')",
            "timestamp('2026-01-02T03:04:05Z').getDayOfWeek() == 5 && timestamp('2026-01-02T03:04:05Z').getMonth() == 0",
            "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h') && string(duration('90m')) == '5400s'",
            "url('https://example.com:8080/a/b?q=1&q=2#f').getPort() == '8080' && isURL('https://x') && !isURL('x y')",
            "url('https://h:1/p?q=1').getQuery()['q'] == ['1'] && url('https://h:1/p%20x').getEscapedPath() == '/p%20x'",
            "ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('x') && ip.isCanonical('127.0.0.1')",
            "cidr('192.168.0.0/24').containsIP('192.168.0.9') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
            "cidr('10.0.0.5/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').ip() == ip('10.0.0.0')",
            "quantity('1').add(quantity('2')) == quantity('3') && quantity('5').sub(2) == quantity('3')",
            "semver('1.2.3').isLessThan(semver('1.10.0')) && !isSemver('v1') && semver('v1.0', true).minor() == 0",
            "!format.dns1123Label().validate('ok').hasValue() && format.named('dns1123Subdomain').value().validate('A_').hasValue()",
            "{'a':1}.transformList(k, v, v) == [1] && {'a':1}.transformMap(k, v, v + 1) == {'a':2} && [1,2].all(i, v, v > i)",
            "[1,2,3].map(x, x > 1, x) == [2,3] && cel.bind(x, 5, x + 1) == 6 && type('a') == string",
            "self.map[?'k'].orValue('') == 'v' && !optional.ofNonZeroValue('').hasValue() && 0x1F == 31 && 1e3 == 1000.0",
            "Object{metadata: Object.metadata{labels: {'x': 'y'}}}.metadata.labels.x == 'y'",
        ] {
            let found = evaluate(rule, &Scope::new(&own, None));
            assert_eq!(found, Ok(true.into()), "{rule}");
        }
    }
}
