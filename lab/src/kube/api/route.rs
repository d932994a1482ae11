//! Paths and queries of requests.

/// A decoded query.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// `%41` and `+` decoded.
#[must_use]
pub fn unescape(text: &str, plus: bool) -> String {
    let b = text.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    while i < b.len() {
        let hex = |j: usize| b.get(j).and_then(|c| char::from(*c).to_digit(16));
        match (b[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(h), Some(l)) => {
                out.push(u8::try_from(h * 16 + l).unwrap_or(b'?'));
                i += 3;
                continue;
            }
            (b'+', ..) if plus => out.push(b' '),
            (c, ..) => out.push(c),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    /// Parses `a=b&c=d`.
    #[must_use]
    pub fn parse(text: &str) -> Query {
        Query(
            text.split('&')
                .filter(|p| !p.is_empty())
                .map(|p| {
                    let (k, v) = p.split_once('=').unwrap_or((p, ""));
                    (unescape(k, true), unescape(v, true))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// A parameter that is there and not empty.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// A boolean parameter, as the API server reads it: there and neither `false` nor `0`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// Rewrites the values of a parameter.
    pub fn rewrite(&mut self, name: &str, f: impl Fn(&str) -> String) {
        self.0.iter_mut().filter(|(k, _)| k == name).for_each(|(_, v)| *v = f(v));
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// An object, collection or subresource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Target {
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace of the path; empty: none.
    pub namespace: String,
    /// Plural resource.
    pub plural: String,
    /// Name of the object.
    pub name: Option<String>,
    /// Subresource.
    pub sub: Option<String>,
    /// What follows the subresource (paths of proxies), with its leading slash.
    pub rest: String,
    /// The old `/watch/` form.
    pub watch: bool,
}

/// What a path means.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// `/healthz`, `/livez`, `/readyz` and the single check below it.
    Health(&'static str, String),
    /// `/version`.
    Version,
    /// `/openapi/...`.
    OpenApi(String),
    /// `/api`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`, `/`.
    Discovery(String),
    /// Something with objects.
    Object(Target),
    /// Nothing.
    Unknown,
}

/// Reads a path.
#[must_use]
pub fn parse(path: &str) -> Route {
    for kind in ["healthz", "livez", "readyz"] {
        if let Some(rest) = path.strip_prefix('/').and_then(|p| p.strip_prefix(kind))
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return Route::Health(kind, rest.trim_matches('/').to_owned());
        }
    }
    if path == "/version" || path == "/version/" {
        return Route::Version;
    }
    if path.starts_with("/openapi/") {
        return Route::OpenApi(path.to_owned());
    }
    let raw: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let segs: Vec<String> = raw.iter().map(|s| unescape(s, false)).collect();
    let trailing = segs.last().is_some_and(String::is_empty);
    let count = segs.len() - usize::from(trailing);
    let (group, version, from) = match segs[0].as_str() {
        "" if count == 0 => return Route::Discovery("/".into()),
        "api" if count <= 2 => return Route::Discovery(path.trim_end_matches('/').to_owned()),
        "apis" if count <= 3 => return Route::Discovery(path.trim_end_matches('/').to_owned()),
        "api" => (String::new(), segs[1].clone(), 2),
        "apis" => (segs[1].clone(), segs[2].clone(), 3),
        _ => return Route::Unknown,
    };
    let mut t = Target { group, version, ..Target::default() };
    let mut rest = &segs[from..count];
    if rest[0] == "watch" {
        t.watch = true;
        rest = &rest[1..];
    }
    if rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2].as_str(), "status" | "finalize") {
        t.namespace = rest[1].clone();
        rest = &rest[2..];
    }
    let Some(plural) = rest.first() else { return Route::Unknown };
    t.plural = plural.clone();
    t.name = rest.get(1).filter(|n| !(n.is_empty() && rest.len() == 2)).cloned();
    t.sub = rest.get(2).cloned();
    if rest.len() > 3 || (trailing && rest.len() == 3) {
        let at = count - rest.len() + 3;
        t.rest = format!("/{}", raw.get(at..).unwrap_or_default().join("/"));
    }
    Route::Object(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let Route::Object(t) = parse("/api/v1/namespaces/a/services/https:hub:443/proxy/x/y%20z") else { panic!() };
        assert_eq!((t.namespace.as_str(), t.plural.as_str()), ("a", "services"));
        assert_eq!(
            (t.name.as_deref(), t.sub.as_deref(), t.rest.as_str()),
            (Some("https:hub:443"), Some("proxy"), "/x/y%20z")
        );
        let Route::Object(t) = parse("/api/v1/namespaces/a/status") else { panic!() };
        assert_eq!((t.plural.as_str(), t.name.as_deref(), t.sub.as_deref()), ("namespaces", Some("a"), Some("status")));
        let Route::Object(t) = parse("/apis/apps/v1/deployments") else { panic!() };
        assert_eq!((t.plural.as_str(), t.name), ("deployments", None));
        assert_eq!(parse("/apis/apps/v1"), Route::Discovery("/apis/apps/v1".into()));
        assert_eq!((parse("/"), parse("//api/v1")), (Route::Discovery("/".into()), Route::Unknown));
        assert_eq!(parse("/readyz/etcd"), Route::Health("readyz", "etcd".into()));
        let Route::Object(t) = parse("/apis/apps/v1/deployments//") else { panic!() };
        assert_eq!((t.plural.as_str(), t.name), ("deployments", None));
        let Route::Object(t) = parse("/api/v1/namespaces/a/services/s/proxy/") else { panic!() };
        assert_eq!(t.rest, "/");
    }
}
