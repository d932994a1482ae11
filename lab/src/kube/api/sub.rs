//! Subresources: status, scale, log, eviction, binding, token.
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, auth, csr, decode, discovery, evict, options, patch, resize, scale, write};
use crate::kube::schema::Kind;
use crate::kube::store::write::set_condition;
use crate::kube::store::{Cause, Failure, failure, meta};
use crate::kube::text::s;

/// Serves a subresource.
///
/// # Errors
/// 404 for one that the kind does not have.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let sub = t.sub.as_deref().unwrap_or_default();
    let method = call.req.method.as_str();
    match (sub, method) {
        ("status", "GET") if kind.status => read::get(call, kind, t),
        ("status", "PUT") if kind.status => write::replace_sub(call, kind, t, "status"),
        ("status", "PATCH") if kind.status => patch::patch_sub(call, kind, t, "status"),
        ("finalize", "PUT") if kind.plural == "namespaces" => write::replace_sub(call, kind, t, "finalize"),
        ("scale", _) if kind.scale => scale::serve(call, kind, t),
        ("eviction", "POST") if kind.plural == "pods" => evict::serve(call, kind, t),
        ("binding", "POST") if kind.plural == "pods" => bind(call, t),
        ("token", "POST") if kind.plural == "serviceaccounts" => token(call, kind, t),
        ("ephemeralcontainers", "GET") if kind.plural == "pods" => read::get(call, kind, t),
        ("ephemeralcontainers", "PUT") if kind.plural == "pods" => write::replace_sub(call, kind, t, sub),
        ("ephemeralcontainers", "PATCH") if kind.plural == "pods" => patch::patch_sub(call, kind, t, sub),
        ("approval", _) if csr::is(kind) => csr::approval(call, kind, t),
        ("resize", _) if kind.plural == "pods" => resize::serve(call, kind, t),
        _ if discovery::has_sub(kind, sub) => Err(Failure::not_allowed()),
        _ if kind.custom => Err(Failure::not_found(kind, t.name.as_deref().unwrap_or_default())),
        _ => Err(Failure::no_resource()),
    }
}

pub(super) fn target(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Value, Failure> {
    let name = t.name.as_deref().unwrap_or_default();
    read::store(call, &kind.resource(), |s| {
        s.get(&kind.resource(), namespace(kind, t), name).cloned().ok_or_else(|| Failure::not_found(kind, name))
    })
}

pub(super) fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// A kind that only subresources take.
pub(super) fn taken(api_version: &str, kind: &str, namespaced: bool) -> Kind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let type_name = gpuhost_stdlib::wire::schema::type_name(api_version, kind);
    let (group, version, kind) = (group.to_owned(), version.to_owned(), kind.to_owned());
    Kind { group, version, kind, type_name, namespaced, ..Kind::default() }
}

/// Puts a pod on a node: its `binding`, or a Binding of its name.
///
/// # Errors
/// 400 for another name in the body, 404, 409 for a pod that is placed or goes, 500 for a target that is none.
pub fn bind(call: &Call<'_>, t: &Target) -> Result<Answer, Failure> {
    let dry = options::write(call.req, "CreateOptions")?;
    let (body, warnings) = decode::object(call, &taken("v1", "Binding", true), t)?;
    let name = t.name.as_deref().unwrap_or_else(|| meta::name(&body));
    if name != meta::name(&body) {
        return Err(Failure::bad_request("name in URL does not match name in Binding object"));
    }
    let (sort, node) = (s(&body, "/target/kind"), s(&body, "/target/name"));
    let mut wrong = Vec::new();
    if !matches!(sort, "" | "Node") {
        let allowed = ["Node".to_owned(), "<empty>".to_owned()];
        wrong.push(Cause::unsupported("target.kind", &sort.into(), &allowed));
    }
    if node.is_empty() {
        wrong.push(Cause::required("target.name", ""));
    }
    if !wrong.is_empty() {
        return Err(Failure::unforeseen(failure::aggregate(&wrong)));
    }
    let pods = read::store(call, "pods", |s| Ok(s.kind_for("pods")))?.unwrap_or_default();
    let pod = target(call, &pods, &Target { name: Some(name.to_owned()), ..t.clone() })?;
    let refuse = |why: String| {
        let binding = Kind { plural: "pods/binding".into(), ..Kind::default() };
        Err(Failure::conflict(&binding, name, &why))
    };
    if meta::deleting(&pod) {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    match s(&pod, "/spec/nodeName") {
        "" => {}
        there => return refuse(format!("pod {name} is already assigned to node \"{there}\"")),
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    if !dry {
        let now = meta::time(call.lab.clock().now_ms());
        read::store(call, "pods", |st| {
            st.patch_unnoted("pods", &t.namespace, name, |o| {
                o["spec"]["nodeName"] = json!(node);
                for (k, v) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
                    o["metadata"]["annotations"][k] = v.clone();
                }
                set_condition(&mut o["status"], &now, ("PodScheduled", "True", "", ""));
                for c in o["status"]["conditions"].as_array_mut().into_iter().flatten() {
                    if c["type"] == "PodScheduled" {
                        c["lastProbeTime"] = Value::Null;
                    }
                }
            })
        })?;
        write::ring(call);
    }
    Ok(Answer { code: 201, body: success(), warnings })
}

/// What a token is to end with, as the field of its claims, name and uid.
fn bound_to(call: &Call<'_>, t: &Target, sa: &Value, spec: &Value) -> Result<Option<(String, Value)>, Failure> {
    let bound = &spec["boundObjectRef"];
    if bound.is_null() {
        return Ok(None);
    }
    let (version, sort, name) = (s(bound, "/apiVersion"), s(bound, "/kind"), s(bound, "/name"));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = match sort {
        "Pod" | "Secret" | "Node" if group.is_empty() => sort.to_lowercase() + "s",
        _ => {
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={sort}");
            return Err(Failure::bad_request(why));
        }
    };
    let kind = read::store(call, &resource, |s| Ok(s.kind_for(&resource)))?.unwrap_or_default();
    let object = target(call, &kind, &Target { name: Some(name.to_owned()), ..t.clone() })?;
    let account = Some(s(&object, "/spec/serviceAccountName")).filter(|n| !n.is_empty()).unwrap_or("default");
    if sort == "Pod" && account != meta::name(sa) {
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            meta::name(sa)
        );
        return Err(Failure::bad_request(why));
    }
    let asked = s(bound, "/uid");
    if !asked.is_empty() && asked != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        let by_kind = Kind { plural: sort.to_owned(), ..Kind::default() };
        return Err(Failure::conflict(&by_kind, name, &why));
    }
    Ok(Some((sort.to_lowercase(), json!({"name": name, "uid": meta::uid(&object)}))))
}

fn token(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let sa = target(call, kind, t)?;
    let request = taken("authentication.k8s.io/v1", "TokenRequest", true);
    let (body, warnings) = decode::object(call, &request, t)?;
    let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let at = "spec.expirationSeconds";
    let wrong = match seconds {
        ..600 => Some("may not specify a duration less than 10 minutes"),
        600..=4_294_967_296 => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(why) = wrong {
        return Err(Failure::invalid(&request, meta::name(&body), &[Cause::invalid(at, &seconds.into(), why)]));
    }
    let named = meta::name(&body);
    if !named.is_empty() && named != meta::name(&sa) {
        let why = "must match the service account name if specified";
        let cause = Cause::invalid("metadata.name", &body["metadata"]["name"], why);
        return Err(Failure::invalid(&request, meta::name(&sa), &[cause]));
    }
    let seconds = u64::try_from(seconds).unwrap_or(3600);
    let asked: Vec<&str> =
        body["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let audiences = if asked.is_empty() { auth::AUDIENCES } else { &asked };
    let bound = bound_to(call, t, &sa, &body["spec"])?;
    let (key, id, now) = call.lab.with(|w| {
        let now = w.now_ms;
        let c = w.clusters.get_mut(call.cluster);
        let (key, id) = c.map(|c| (c.token_key().to_owned(), c.store.uuid())).unwrap_or_default();
        (key, id, now)
    });
    let token = auth::make_token(&key, &sa, now, seconds, audiences, (&id, bound));
    let mut out = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": body["spec"],
        "metadata": {"name": meta::name(&sa), "namespace": t.namespace, "creationTimestamp": meta::time(now)}});
    if call.minor() >= 34 {
        out["metadata"]["uid"] = sa["metadata"]["uid"].clone();
    }
    out["spec"]["audiences"] = json!(audiences);
    out["spec"]["expirationSeconds"] = json!(seconds);
    if out["spec"].get("boundObjectRef").is_none() {
        out["spec"]["boundObjectRef"] = Value::Null;
    }
    out["status"] = json!({"token": token, "expirationTimestamp": meta::time(now + seconds * 1000)});
    Ok(Answer { code: 201, body: out, warnings })
}
