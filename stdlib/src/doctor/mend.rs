//! The small repairs that findings name: replicas, pods that start over, a drift put back, a forgotten password.
use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::Op;
use crate::kubernetes::Cluster;
use crate::kubernetes::rest::{Request, escape};

const REPOS: &str = "/apis/fleet.cattle.io/v1alpha1/namespaces/fleet-local/gitrepos";

impl Cluster {
    /// A Deployment, or the StatefulSet of that name, has so many replicas.
    ///
    /// # Errors
    /// `not_found`; what the API server refused.
    pub async fn ensure_replicas(&self, ctx: &Ctx, namespace: &str, name: &str, n: i64) -> OpResult<bool> {
        if n < 1 {
            return Err(OpError::invalid(format!("{n} replicas would stop it")).on(name).hint("ask for 1 or more"));
        }
        let op = Op::write("doctor", "ensure_replicas", format!("{namespace}/{name}")).args(&n);
        ctx.run_op(op, |s| async move {
            let set = match self.find_object(s.ctx(), "deployment", namespace, name).await? {
                Some(_) => None,
                None => self.find_object(s.ctx(), "statefulset", namespace, name).await?,
            };
            let (plural, live) = match set {
                Some(live) => ("statefulsets", live),
                None => ("deployments", self.get_object(s.ctx(), "deployment", namespace, name).await?),
            };
            let has = live["spec"]["replicas"].as_i64().unwrap_or(1);
            if has == n {
                return Ok(false);
            }
            let change =
                Change::new(self.name(), format!("replicas of {namespace}/{name}"), Some(has.into()), Some(n.into()));
            let path = format!("/apis/apps/v1/namespaces/{}/{plural}/{}", escape(namespace), escape(name));
            s.act(name.to_owned(), vec![change], async {
                self.demand(s.ctx(), name, &Request::merge(path, &json!({"spec": {"replicas": n}}))).await
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Deletes the pods with label `app`, which their owner makes anew; on one node, or on all when it is empty.
    ///
    /// # Errors
    /// `not_found` when there is none; `denied` when declined.
    pub async fn restart_pods(&self, ctx: &Ctx, namespace: &str, app: &str, node: &str) -> OpResult<i64> {
        // The pods of a run that died are gone; those that came after them may go as well.
        let target = format!("{namespace}/{app}");
        let op = Op::destroy("doctor", "restart_pods", target).class(Class::Repeatable).args(&node);
        ctx.run_op(op, |s| async move {
            let all = self.list_labelled(s.ctx(), "pod", namespace, ("app", app)).await?;
            let here: Vec<String> = all
                .iter()
                .filter(|p| node.is_empty() || p["spec"]["nodeName"] == node)
                // a bare pod would not come back
                .filter(|p| p["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty()))
                .filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned))
                .collect();
            if here.is_empty() {
                return Err(
                    OpError::not_found(format!("no pod with app={app} in namespace {namespace}")).on(self.name())
                );
            }
            let changes = here
                .iter()
                .map(|p| {
                    Change::new(
                        self.name(),
                        format!("pod {namespace}/{p}"),
                        Some("running".into()),
                        Some("made anew".into()),
                    )
                })
                .collect();
            s.act(app.to_owned(), changes, async {
                for p in &here {
                    self.delete_now(s.ctx(), "pod", namespace, p).await?;
                }
                Ok(())
            })
            .await?;
            Ok(i64::try_from(here.len()).unwrap_or(0))
        })
        .await
    }

    /// Fleet applies everything of a repository of `fleet-local` again, over what was changed by hand.
    ///
    /// # Errors
    /// `not_found`; what the API server refused.
    pub async fn start_resync(&self, ctx: &Ctx, repo: &str) -> OpResult<()> {
        let op = Op::run("doctor", "start_resync", repo.to_owned());
        ctx.run_op(op, |s| async move {
            let path = format!("{REPOS}/{}", escape(repo));
            let live: Value = self.demand(s.ctx(), repo, &Request::get(path.clone())).await?;
            let now = live["spec"]["forceSyncGeneration"].as_i64().unwrap_or(0);
            let change =
                Change::new(self.name(), format!("repository {repo}"), Some(now.into()), Some((now + 1).into()));
            s.act(repo.to_owned(), vec![change], async {
                let patch = json!({"spec": {"forceSyncGeneration": now + 1}});
                self.demand(s.ctx(), repo, &Request::merge(path, &patch)).await
            })
            .await
            .map(drop)
        })
        .await
    }

    /// Forgets the password under which a node of this name registered, so that a machine made anew may take its place.
    ///
    /// # Errors
    /// `denied` when declined.
    pub async fn remove_node_password(&self, ctx: &Ctx, node: &str) -> OpResult<bool> {
        self.delete_object(ctx, "secret", "kube-system", &format!("{node}.node-password.k3s")).await
    }
}
