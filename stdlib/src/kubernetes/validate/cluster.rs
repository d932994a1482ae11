//! Validation against what the cluster itself publishes: CRD schemas, and OpenAPI of newer Kubernetes minors.
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Closed, Fault, Schemas, check, check_builtin, fault_error, identity};
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::kubernetes::Cluster;
use crate::kubernetes::rest::Request;
use crate::wire::schema::MINOR;

/// Definitions of one OpenAPI document.
struct Document(Arc<Value>);

impl Schemas for Document {
    fn definition(&self, name: &str) -> Option<&Value> {
        self.0["components"]["schemas"].get(name)
    }
}

/// The schema of `version` in a CustomResourceDefinition.
fn crd_schema<'a>(crd: &'a Value, version: &str) -> Option<&'a Value> {
    let v = crd["spec"]["versions"].as_array()?.iter().find(|v| v["name"] == version)?;
    v["schema"].get("openAPIV3Schema")
}

fn with_envelope(schema: &Value) -> Value {
    let mut s = schema.clone();
    for (key, ty) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        if s["properties"].is_object() && s["properties"][key].is_null() {
            s["properties"][key] = json!({"type": ty});
        }
    }
    s
}

impl Cluster {
    /// Refuses objects with unknown, mistyped or missing fields, before anything is sent.
    ///
    /// # Errors
    /// `invalid` naming the object, the path and the closest field.
    pub async fn validate_objects(&self, ctx: &Ctx, objects: &[Value]) -> OpResult<()> {
        for object in objects {
            let faults = self.faults_of(ctx, object, objects).await?;
            if !faults.is_empty() {
                return Err(fault_error(object, &faults));
            }
        }
        Ok(())
    }

    async fn faults_of(&self, ctx: &Ctx, object: &Value, all: &[Value]) -> OpResult<Vec<Fault>> {
        let faults = identity(object);
        if !faults.is_empty() {
            return Ok(faults);
        }
        match check_builtin(object) {
            Some(faults) if faults.is_empty() => Ok(faults),
            // a newer cluster may know fields that the compiled-in types do not have
            Some(faults) => match self.published(ctx, object).await {
                Some(newer) => Ok(newer),
                None => Ok(faults),
            },
            None => self.custom_faults(ctx, object, all).await,
        }
    }

    /// Faults against the cluster's own OpenAPI, when its Kubernetes is newer than the compiled-in types.
    async fn published(&self, ctx: &Ctx, object: &Value) -> Option<Vec<Fault>> {
        let minor = self.minor(ctx).await.ok()?;
        if minor <= MINOR {
            return None;
        }
        let api = object["apiVersion"].as_str()?;
        let path = if api.contains('/') { format!("/openapi/v3/apis/{api}") } else { format!("/openapi/v3/api/{api}") };
        let document = self.document(ctx, &path).await?;
        let root = document["components"]["schemas"]
            .get(crate::wire::schema::type_name(api, object["kind"].as_str()?))?
            .clone();
        Some(check(&Document(document), &root, object))
    }

    async fn document(&self, ctx: &Ctx, path: &str) -> Option<Arc<Value>> {
        let key = format!("openapi {} {path}", self.name());
        if let Some(known) = ctx.cached::<Value>(&key) {
            return Some(known);
        }
        let reply = self.send(ctx, &Request::get(path)).await.ok().filter(crate::kubernetes::rest::Reply::ok)?;
        let document = Arc::new(reply.json());
        ctx.keep(key, document.clone());
        Some(document)
    }

    /// Kubernetes minor of the API servers.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn minor(&self, ctx: &Ctx) -> OpResult<u32> {
        let version = self.read_json(ctx, "/version").await?;
        let digits: String =
            version["minor"].as_str().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse().unwrap_or(MINOR))
    }

    /// Faults against the kind's CustomResourceDefinition: the one that comes along, or the cluster's.
    async fn custom_faults(&self, ctx: &Ctx, object: &Value, all: &[Value]) -> OpResult<Vec<Fault>> {
        let (api, kind) =
            (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
        let Some((group, version)) = api.split_once('/') else { return Ok(Vec::new()) };
        let along = all.iter().find(|x| {
            x["kind"] == "CustomResourceDefinition" && x["spec"]["group"] == group && x["spec"]["names"]["kind"] == kind
        });
        let crd = match along {
            Some(crd) => crd.clone(),
            None => {
                let Ok(k) = self.kind_of(ctx, object).await else { return Ok(Vec::new()) };
                let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.{}", k.plural, k.group);
                let reply = self.send(ctx, &Request::get(path)).await?;
                if !reply.ok() {
                    return Ok(Vec::new()); // an aggregated API, or no right to read CRDs: the dry run decides
                }
                reply.json()
            }
        };
        let Some(schema) = crd_schema(&crd, version) else { return Ok(Vec::new()) };
        Ok(check(&Closed, &with_envelope(schema), object))
    }
}
