//! Who a client is: certificates of the cluster's CA, and tokens of service accounts.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rbac::{self, Ask};
use super::{Request, jwt};
use crate::Lab;
use crate::kube::store::{Failure, Store, meta};
use crate::kube::text::{sha256_of, unb64};

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Uid, for service accounts.
    pub uid: String,
    /// What is known beside: the number of the credential, the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The field of a user that says by which credential it was known.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

impl User {
    /// Whether the user may do everything.
    #[must_use]
    pub fn admin(&self) -> bool {
        self.groups.iter().any(|g| g == "system:masters")
    }

    /// From a client certificate: CN is the name, every O a group. One that has ended by `now_ms` is nobody's.
    #[must_use]
    pub fn from_cert(der: &[u8], now_ms: u64) -> Option<User> {
        let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
        if cert.validity().not_after.timestamp() < i64::try_from(now_ms / 1000).ok()? {
            return None;
        }
        let subject = cert.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let mut groups: Vec<String> =
            subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        groups.push("system:authenticated".into());
        let number = format!("X509SHA256={}", sha256_of(der));
        let extra = BTreeMap::from([(CREDENTIAL.to_owned(), vec![number])]);
        Some(User { name, groups, uid: String::new(), extra })
    }

    /// What is known beside, as objects carry it; none when nothing is.
    #[must_use]
    pub fn extra(&self) -> Option<Value> {
        (!self.extra.is_empty()).then(|| json!(self.extra))
    }
}

/// The user of a request, or whom an administrator speaks for.
///
/// # Errors
/// 401 without a certificate or with a wrong token; 403 when somebody else wants to speak for another.
pub fn who(lab: &Lab, cluster: &str, cert: Option<User>, req: &Request) -> Result<User, Failure> {
    let user = own(lab, cluster, cert, req)?;
    let header = |name: &str| req.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let Some(name) = header("impersonate-user") else {
        return nobody(req).map_or(Ok(user), Err);
    };
    may_speak_for(lab, cluster, &user, &name, req)?;
    let mut groups: Vec<String> =
        req.headers.iter().filter(|(k, _)| k == "impersonate-group").map(|(_, v)| v.clone()).collect();
    if let Some(rest) = name.strip_prefix("system:serviceaccount:").filter(|_| groups.is_empty()) {
        let ns = rest.split(':').next().unwrap_or_default();
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{ns}")];
    }
    let everyone = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|g| g == everyone) {
        groups.push(everyone.into());
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (k, v) in &req.headers {
        if let Some(field) = k.strip_prefix("impersonate-extra-") {
            let field = super::route::unescape(field, false).to_lowercase();
            extra.entry(field).or_default().push(v.clone());
        }
    }
    Ok(User { name, groups, uid: header("impersonate-uid").unwrap_or_default(), extra })
}

/// Refuses to speak for a group, or for more, without speaking for a user.
fn nobody(req: &Request) -> Option<Failure> {
    let asked: Vec<String> = req
        .headers
        .iter()
        .filter_map(|(k, v)| match k.as_str() {
            "impersonate-group" => Some(format!("{{Group  {v}    }}")),
            "impersonate-uid" => Some(format!("{{UID  {v}  authentication.k8s.io/v1  }}")),
            k => k
                .strip_prefix("impersonate-extra-")
                .map(|f| format!("{{UserExtra  {v}  authentication.k8s.io/v1  {f}}}")),
        })
        .collect();
    let why = format!("requested [{}] without impersonating a user", asked.join(" "));
    (!asked.is_empty()).then(|| Failure::bad_request(why))
}

/// Refuses to let `user` speak for somebody whom no rule lets it impersonate.
fn may_speak_for(lab: &Lab, cluster: &str, user: &User, name: &str, req: &Request) -> Result<(), Failure> {
    let mut asked: Vec<(&str, &str, &str)> =
        match name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':')) {
            Some((ns, sa)) => vec![("serviceaccounts", ns, sa)],
            None => vec![("users", "", name)],
        };
    asked.extend(req.headers.iter().filter(|(k, _)| k == "impersonate-group").map(|(_, g)| ("groups", "", g.as_str())));
    for (resource, namespace, name) in asked {
        let ask = Ask { verb: "impersonate", group: "", resource, namespace, name };
        if lab.with(|w| w.clusters.get(cluster).is_some_and(|c| rbac::allowed(&c.store, user, &ask))) {
            continue;
        }
        let place = match namespace {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace \"{ns}\""),
        };
        let why =
            format!("User \"{}\" cannot impersonate resource \"{resource}\" in API group \"\" {place}", user.name);
        let mut f = Failure::new(403, "Forbidden", format!("{resource} \"{name}\" is forbidden: {why}"));
        f.details = Some(json!({"name": name, "kind": resource}));
        return Err(f);
    }
    Ok(())
}

/// The user of a request by its certificate or token. K3s answers nobody anonymously.
fn own(lab: &Lab, cluster: &str, cert: Option<User>, req: &Request) -> Result<User, Failure> {
    let header = req.headers.iter().find(|(k, _)| k == "authorization").map(|(_, v)| v.as_str());
    let Some(header) = header else { return cert.ok_or_else(Failure::unauthorized) };
    let token = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer ")).unwrap_or_default().trim();
    of_token(lab, cluster, token).ok_or_else(Failure::unauthorized)
}

/// Whom tokens are for, unless their maker says otherwise.
pub const AUDIENCES: &[&str] = &[jwt::ISSUER, "k3s"];

/// The service account that a token was made for, if it was made here, is fresh, the account is there, and it is meant
/// for this API server.
#[must_use]
pub fn of_token(lab: &Lab, cluster: &str, token: &str) -> Option<User> {
    of_token_for(lab, cluster, token, AUDIENCES).map(|(user, _)| user)
}

/// As [`of_token`], for other audiences; with those that the token is meant for.
#[must_use]
pub fn of_token_for(lab: &Lab, cluster: &str, token: &str, audiences: &[&str]) -> Option<(User, Vec<String>)> {
    lab.with(|w| {
        let now = w.now_ms;
        let c = w.clusters.get(cluster)?;
        let claims = jwt::read(c.token_key(), token)?;
        if claims["iss"] == LASTING {
            // such a token is for nobody else
            let own: Vec<String> =
                audiences.iter().filter(|a| AUDIENCES.contains(a)).map(|a| (*a).to_owned()).collect();
            return (!own.is_empty()).then_some(own).zip(lasting(&c.store, &claims, token)).map(|(own, u)| (u, own));
        }
        let meant = audiences.iter().filter(|a| claims["aud"].as_array().is_some_and(|l| l.iter().any(|x| x == *a)));
        let meant: Vec<String> = meant.map(|a| (*a).to_owned()).collect();
        if meant.is_empty() {
            return None;
        }
        if claims["exp"].as_u64().is_some_and(|e| e * 1000 < now) {
            return None;
        }
        let (ns, name) = (
            claims["kubernetes.io"]["namespace"].as_str()?,
            claims["kubernetes.io"]["serviceaccount"]["name"].as_str()?,
        );
        let sa = c.store.get("serviceaccounts", ns, name)?;
        if claims["kubernetes.io"]["serviceaccount"]["uid"] != sa["metadata"]["uid"] {
            return None;
        }
        let ended = |(field, resource, ns): &(&str, &str, &str)| {
            let bound = &claims["kubernetes.io"][*field];
            let lives = |o: &Value| o["metadata"]["uid"] == bound["uid"];
            let name = bound["name"].as_str().unwrap_or_default();
            bound.is_object() && !c.store.get(resource, ns, name).is_some_and(lives)
        };
        if [("pod", "pods", ns), ("secret", "secrets", ns), ("node", "nodes", "")].iter().any(ended) {
            return None;
        }
        let mut user = of_account(sa);
        user.extra = beside(&claims);
        Some((user, meant))
    })
}

/// The issuer of tokens that are kept in Secrets.
const LASTING: &str = "kubernetes/serviceaccount";

/// A token of a service account that a Secret keeps: it lasts as long as both of them.
#[must_use]
pub fn lasting_token(key: &str, sa: &Value, secret: &str) -> String {
    let (ns, name) = (meta::namespace(sa), meta::name(sa));
    jwt::signed(
        key,
        &json!({
            "iss": LASTING,
            "kubernetes.io/serviceaccount/namespace": ns,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": meta::uid(sa),
            "sub": format!("system:serviceaccount:{ns}:{name}"),
        }),
    )
}

/// The account of a token that a Secret keeps.
fn lasting(store: &Store, claims: &Value, token: &str) -> Option<User> {
    let word = |k: &str| claims[format!("kubernetes.io/serviceaccount/{k}")].as_str().unwrap_or_default();
    let (ns, name) = (word("namespace"), word("service-account.name"));
    let secret = store.get("secrets", ns, word("secret.name"))?;
    let kept = secret["data"]["token"].as_str().and_then(unb64)?;
    let sa = store.get("serviceaccounts", ns, name)?;
    let good = kept == token.as_bytes() && !meta::deleting(secret) && word("service-account.uid") == meta::uid(sa);
    good.then(|| of_account(sa))
}

/// What a token says of itself: its number, and the pod and node that it is bound to.
fn beside(claims: &Value) -> BTreeMap<String, Vec<String>> {
    let number = claims["jti"].as_str().map(|id| (CREDENTIAL.to_owned(), vec![format!("JTI={id}")]));
    let bound = ["pod", "node"].into_iter().flat_map(|what| {
        let of = claims["kubernetes.io"][what].clone();
        ["name", "uid"].into_iter().filter_map(move |field| {
            Some((format!("authentication.kubernetes.io/{what}-{field}"), vec![of[field].as_str()?.to_owned()]))
        })
    });
    number.into_iter().chain(bound).collect()
}

/// A service account as a user.
fn of_account(sa: &Value) -> User {
    let (ns, name) = (meta::namespace(sa), meta::name(sa));
    User {
        name: format!("system:serviceaccount:{ns}:{name}"),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{ns}"),
            "system:authenticated".into(),
        ],
        uid: meta::uid(sa).to_owned(),
        extra: BTreeMap::new(),
    }
}

/// A token of a service account; `seconds` 0: it does not expire. `id`: its own number; `bound`: what it ends with, as its
/// field in the claims.
#[must_use]
pub fn make_token(
    key: &str,
    sa: &Value,
    now_ms: u64,
    seconds: u64,
    audiences: &[&str],
    (id, bound): (&str, Option<(String, Value)>),
) -> String {
    let (ns, name) = (meta::namespace(sa), meta::name(sa));
    let mut claims = json!({
        "aud": audiences,
        "iat": now_ms / 1000,
        "nbf": now_ms / 1000,
        "iss": jwt::ISSUER,
        "jti": id,
        "sub": format!("system:serviceaccount:{ns}:{name}"),
        "kubernetes.io": {"namespace": ns, "serviceaccount": {"name": name, "uid": meta::uid(sa)}},
    });
    if seconds > 0 {
        claims["exp"] = (now_ms / 1000 + seconds).into();
    }
    if let Some((field, object)) = bound {
        claims["kubernetes.io"][field] = object;
    }
    jwt::signed(key, &claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{self, Leaf};

    #[test]
    fn a_certificate_that_has_ended_is_nobody_s() {
        let ca = tls::make_ca("ca").unwrap();
        let end_ms = Some(1_795_339_800_000);
        let leaf =
            Leaf { cn: "system:admin", org: Some("system:masters"), names: &[], end_ms, server: false, client: true };
        let pem = tls::sign(&ca, &leaf).unwrap().cert;
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let at = |ms| User::from_cert(&pem.contents, ms);
        assert!(at(1_795_339_800_000).is_some_and(|u| u.admin()) && at(1_795_339_801_000).is_none());
    }
}
