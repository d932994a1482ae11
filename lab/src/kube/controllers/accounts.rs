//! Secrets that hold tokens of service accounts, and cluster roles that gather the rules of others,
//! policies whose expressions have been looked at. Grade: source (the token, clusterrole-aggregation and
//! validatingadmissionpolicy-status controllers).
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::store::{Labels, meta};
use super::super::text::{arr, b64, s};
use crate::kube::api::auth;

const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// The type of a Secret that holds a token.
pub const TOKEN: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Fills in the Secrets of a namespace that wait for a token, and removes those whose account is gone.
pub fn tokens(cx: &mut Cx, ns: &str) {
    let all = cx.list_in("secrets", ns).into_iter().filter(|o| s(o, "/type") == TOKEN);
    let all: Vec<Value> = all.filter(|o| !meta::deleting(o)).cloned().collect();
    for secret in all {
        let (_, name) = key(&secret);
        let account = meta::annotation(&secret, ACCOUNT).unwrap_or_default();
        let found = cx.get("serviceaccounts", ns, account).filter(|a| {
            let known = meta::annotation(&secret, UID).unwrap_or_default();
            known.is_empty() || known == meta::uid(a)
        });
        let Some(account) = found.cloned() else {
            cx.delete("secrets", ns, &name);
            continue;
        };
        let full = ["token", "ca.crt", "namespace"].iter().all(|f| secret["data"][*f].is_string());
        if full && meta::annotation(&secret, UID).is_some() {
            continue;
        }
        let token = auth::lasting_token(cx.c.token_key(), &account, &name);
        let ca = cx.c.ca.cert.clone();
        let uid = meta::uid(&account).to_owned();
        cx.update("secrets", ns, &name, |o| {
            for (k, v) in [("ca.crt", &ca), ("namespace", &ns.to_owned()), ("token", &token)] {
                if !o["data"][k].is_string() {
                    o["data"][k] = b64(v.as_bytes()).into();
                }
            }
            o["metadata"]["annotations"][UID] = json!(uid);
        });
    }
}

/// Cluster roles that gather others have the rules of those that their selectors name.
pub fn roles(cx: &mut Cx) {
    let gathering: Vec<Value> =
        cx.list(ROLES).into_iter().filter(|r| r["aggregationRule"].is_object()).cloned().collect();
    for role in gathering {
        let name = meta::name(&role).to_owned();
        let mut rules: Vec<Value> = Vec::new();
        for by in arr(&role, "/aggregationRule/clusterRoleSelectors") {
            let sel = Labels::from_spec(by);
            let mut found: Vec<&Value> =
                cx.list(ROLES).into_iter().filter(|r| sel.matches(r) && meta::name(r) != name).collect();
            found.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
            for rule in found.into_iter().flat_map(|r| arr(r, "/rules")) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        if arr(&role, "/rules") != rules.as_slice() {
            cx.update(ROLES, "", &name, |o| o["rules"] = json!(rules));
        }
    }
}

/// Policies say up to where their expressions have been looked at.
pub fn policies(cx: &mut Cx) {
    const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
    let late = |p: &&Value| p["status"]["observedGeneration"] != p["metadata"]["generation"];
    let all: Vec<Value> = cx.list(POLICIES).into_iter().filter(late).cloned().collect();
    for p in all {
        let seen = json!({"observedGeneration": p["metadata"]["generation"], "typeChecking": {}});
        cx.update(POLICIES, "", meta::name(&p), |o| o["status"] = seen);
    }
}
