//! The script functions of `kubernetes` for waiting and for pods.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, FnPtr, Map};
use serde_json::{Value, json};

use super::exec::ExecOptions;
use super::logs::log_options;
use super::script::to_script;
use super::watch::{Target, Watch};
use super::{Cluster, EvictOptions, ObjectOptions, pod_trouble, seen, waits_on};
use crate::core::ctx::{Ctx, RhaiResultOf, call};
use crate::core::error::{Kind, OpError};
use crate::core::units::Duration;

/// The functions.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

/// An object's state in a few words.
fn state_words(object: &Value) -> String {
    if object["kind"] == "Pod"
        && let Some(t) = pod_trouble(object)
    {
        return t;
    }
    let list = object["status"]["conditions"].as_array();
    let words: Vec<String> = list
        .into_iter()
        .flatten()
        .map(|c| format!("{} {}", c["type"].as_str().unwrap_or("?"), c["status"].as_str().unwrap_or("?")))
        .collect();
    match (words.is_empty(), object["status"]["phase"].as_str()) {
        (_, Some(phase)) => format!("phase {phase}"),
        (false, None) => words.join(", "),
        (true, None) => "it exists".to_owned(),
    }
}

#[export_module]
mod api {
    use super::*;

    /// Waits for `condition=Ready`, `phase=Running`, `rollout`, `exists` or `delete`.
    ///
    /// After a change of a Deployment, StatefulSet or DaemonSet wait for `rollout`, as `kubectl rollout status` does: every
    /// replica is of the new template and available. `condition=Available` is true while the old pods still serve. A rollout that
    /// is past its progress deadline ends the wait with the pod at fault.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait("node", "k3s-cp1", "condition=Ready", 5.minutes);
    /// ```
    #[rhai_fn(global, name = "wait", return_raw, pure)]
    pub fn wait(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        goal: &str,
        limit: Duration,
    ) -> RhaiResultOf<()> {
        wait_in(ncc, cluster, kind, name, goal, limit, Map::new())
    }

    /// Waits for a goal (`condition=Ready`, `exists` …) of an object in a namespace.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait("deploy", "hub", "condition=Available", 5.minutes, #{ namespace: "jupyterhub" });
    /// ```
    #[rhai_fn(global, name = "wait", return_raw, pure)]
    pub fn wait_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        goal: &str,
        limit: Duration,
        options: Map,
    ) -> RhaiResultOf<()> {
        let (cluster, kind, name, goal) = (cluster.clone(), kind.to_owned(), name.to_owned(), goal.to_owned());
        call(&ncc, |ctx| async move {
            let o = ObjectOptions::read(&options)?;
            cluster.wait_object(&ctx, &kind, &o.namespace, &name, &goal, limit.0).await
        })
    }

    /// Waits until each named node is present and Ready; the error says what each lacks.
    ///
    /// Just after a reboot `Ready` can still be the word of the boot before: wait for another
    /// `status.nodeInfo.bootID` first, as `recipes/lib/gentle.rhai` does.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait_nodes(site().node_names(), 10.minutes);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn wait_nodes(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        names: Array,
        limit: Duration,
    ) -> RhaiResultOf<()> {
        let cluster = cluster.clone();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        call(&ncc, |ctx| async move { cluster.wait_nodes(&ctx, &names, limit.0).await })
    }

    /// Waits until the closure is content with an object.
    ///
    /// It is given the object, or `()` while there is none, and its value is what the call gives.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait_until("node", "k3s-cp1", 5.minutes, |node| node != () && "status" in node);
    /// ```
    #[rhai_fn(global, name = "wait_until", return_raw, pure)]
    pub fn wait_until(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        limit: Duration,
        cond: FnPtr,
    ) -> RhaiResultOf<Dynamic> {
        wait_until_in(ncc, cluster, kind, name, limit, Map::new(), cond)
    }

    /// Waits until the closure is content with an object of a namespace; gives what it gave.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.wait_until("deploy", "hub", 5.minutes, #{ namespace: "jupyterhub" }, |d| d != () && d.status.readyReplicas == 1);
    /// ```
    #[rhai_fn(global, name = "wait_until", return_raw, pure)]
    pub fn wait_until_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        limit: Duration,
        options: Map,
        cond: FnPtr,
    ) -> RhaiResultOf<Dynamic> {
        let ctx = Ctx::of(&ncc)?;
        let ns = ObjectOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?.namespace;
        let (cluster, ns) = (&*cluster, ns.as_str());
        let mut watch = Watch::new(cluster, Target::one(kind, ns, name));
        let start = ctx.clock.last_ms();
        loop {
            let found = call(&ncc, |ctx| async move {
                match cluster.find_object(&ctx, kind, ns, name).await {
                    Ok(found) => Ok(Ok(found)),
                    // the server may come back, the kind may be installed yet
                    Err(e) if waits_on(&e) || e.is(Kind::NotFound) => Ok(Err(seen(&e))),
                    Err(e) => Err(e),
                }
            })?;
            let seen = match found {
                Err(seen) => seen,
                Ok(object) => {
                    let value = object.as_ref().map_or(Ok(Dynamic::UNIT), to_script).map_err(|e| e.into_rhai(&ncc))?;
                    let verdict = cond.call_within_context::<Dynamic>(&ncc, (value,))?;
                    if !verdict.is_unit() && verdict.as_bool() != Ok(false) {
                        return Ok(verdict);
                    }
                    object.as_ref().map_or_else(|| "it does not exist".to_owned(), state_words)
                }
            };
            if ctx.clock.last_ms().saturating_sub(start) >= limit.0.as_millis() as u64 {
                let e = OpError::timeout(format!("{kind} {name} did not become as wanted within {limit}"));
                return Err(e.on(name).last_seen(seen).into_rhai(&ncc));
            }
            watch = call(&ncc, |ctx| async move {
                watch.news(&ctx).await;
                ctx.check_cancelled().map(|()| watch)
            })?;
        }
    }

    /// Runs a program in a pod of namespace `default`: `#{ stdout, stderr, code }`.
    ///
    /// # Example
    /// ```rhai,check
    /// print(cluster.exec("web", ["nvidia-smi", "-L"]).stdout);
    /// ```
    #[rhai_fn(global, name = "exec", return_raw, pure)]
    pub fn exec(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str, argv: Array) -> RhaiResultOf<Dynamic> {
        exec_with(ncc, cluster, pod, argv, Map::new())
    }

    /// Runs a program in a container: `#{ stdout, stderr, code }`.
    ///
    /// # Example
    /// ```rhai,check
    /// print(cluster.exec("web", ["cat"], #{ namespace: "shop", stdin: "hello" }).stdout);
    /// ```
    #[rhai_fn(global, name = "exec", return_raw, pure)]
    pub fn exec_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        pod: &str,
        argv: Array,
        options: Map,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, pod) = (cluster.clone(), pod.to_owned());
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        call(&ncc, |ctx| async move {
            let end = cluster.exec_in(&ctx, &pod, &argv, &ExecOptions::read(&options)?).await?;
            to_script(&json!({"stdout": end.stdout, "stderr": end.stderr, "code": end.code}))
        })
    }

    /// Opens a local port that leads to a pod's port while the run lives; gives its number.
    ///
    /// # Example
    /// ```rhai,check
    /// let port = cluster.port_forward("web", 8080, #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn port_forward(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        pod: &str,
        port: i64,
        options: Map,
    ) -> RhaiResultOf<i64> {
        let (cluster, pod) = (cluster.clone(), pod.to_owned());
        call(&ncc, |ctx| async move {
            let ns = ObjectOptions::read(&options)?.namespace;
            let ns = if ns.is_empty() { "default".to_owned() } else { ns };
            cluster.forward(&ctx, &ns, &pod, port).await.map(i64::from)
        })
    }

    /// Events of an object, oldest first: `#{ type, reason, message }`.
    ///
    /// # Example
    /// ```rhai
    /// print(table(cluster.events("node", "k3s-cp1")));
    /// ```
    #[rhai_fn(global, name = "events", return_raw, pure)]
    pub fn events(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str, name: &str) -> RhaiResultOf<Array> {
        events_in(ncc, cluster, kind, name, Map::new())
    }

    /// Events of a namespace's object, oldest first: `#{ type, reason, message }`.
    ///
    /// # Example
    /// ```rhai
    /// let news = cluster.events("pvc", "data", #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "events", return_raw, pure)]
    pub fn events_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, kind, name) = (cluster.clone(), kind.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move {
            let o = ObjectOptions::read(&options)?;
            let list = cluster.events_of(&ctx, &kind, &o.namespace, &name).await?;
            list.iter().map(|(t, r, m)| to_script(&json!({"type": t, "reason": r, "message": m}))).collect()
        })
    }

    /// The log of a pod in namespace `default`.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.logs("web"));
    /// ```
    #[rhai_fn(global, name = "logs", return_raw, pure)]
    pub fn logs(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str) -> RhaiResultOf<String> {
        logs_with(ncc, cluster, pod, Map::new())
    }

    /// The log of a pod, or a part of it.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.logs("web", #{ namespace: "shop", tail: 20, since: 10.minutes }));
    /// ```
    #[rhai_fn(global, name = "logs", return_raw, pure)]
    pub fn logs_with(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str, options: Map) -> RhaiResultOf<String> {
        let (cluster, pod) = (cluster.clone(), pod.to_owned());
        call(&ncc, |ctx| async move {
            let (o, part) = log_options(&options)?;
            cluster.pod_log_of(&ctx, &pod, &o, &part).await
        })
    }

    /// Follows the log of a container: each line is given to the closure until that is content.
    ///
    /// The closure's first value that is neither `()` nor `false` ends it and is what the call gives; `()` when the container
    /// ends before. It begins with the last lines that there are: `tail: 0` for new ones only.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.logs("web", #{ namespace: "shop", timeout: 2.minutes }, |line| line.contains("ready to serve"));
    /// ```
    #[rhai_fn(global, name = "logs", return_raw, pure)]
    pub fn follow_logs(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        pod: &str,
        options: Map,
        each: FnPtr,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, pod) = (&*cluster, pod.to_owned());
        let mut log = call(&ncc, |ctx| async move {
            let (o, part) = log_options(&options)?;
            cluster.follow_log(&ctx, &pod, &o, &part).await
        })?;
        loop {
            let (line, back) = call(&ncc, |ctx| async move { log.next(&ctx).await.map(|line| (line, log)) })?;
            log = back;
            let Some(line) = line else { return Ok(Dynamic::UNIT) };
            let verdict = each.call_within_context::<Dynamic>(&ncc, (line,))?;
            if !verdict.is_unit() && verdict.as_bool() != Ok(false) {
                return Ok(verdict);
            }
        }
    }

    /// Evicts a pod of namespace `default`; `false` when there is none. Asks first.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.evict("web");
    /// ```
    #[rhai_fn(global, name = "evict", return_raw, pure)]
    pub fn evict(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str) -> RhaiResultOf<bool> {
        evict_with(ncc, cluster, pod, Map::new())
    }

    /// Evicts a pod as a drain does; `false` when there is none.
    ///
    /// A disruption budget may keep it: then the error says which pods it misses.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.evict("web", #{ namespace: "shop", timeout: 2.minutes });
    /// ```
    #[rhai_fn(global, name = "evict", return_raw, pure)]
    pub fn evict_with(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str, options: Map) -> RhaiResultOf<bool> {
        let (cluster, pod) = (cluster.clone(), pod.to_owned());
        call(&ncc, |ctx| async move { cluster.evict_pod(&ctx, &pod, &EvictOptions::read(&options)?).await })
    }

    /// Why a pod does not run, or `()` when it does.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.explain_pending("shop", "web"));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn explain_pending(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        namespace: &str,
        pod: &str,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, namespace, pod) = (cluster.clone(), namespace.to_owned(), pod.to_owned());
        call(&ncc, |ctx| async move {
            Ok(cluster.explain_pod(&ctx, &namespace, &pod).await?.map_or(Dynamic::UNIT, Dynamic::from))
        })
    }

    /// GET through the API server's service proxy: `#{ status, body }`.
    ///
    /// # Example
    /// ```rhai
    /// require(cluster.http_get("cattle-system/rancher:80", "/ping").body == "pong", "Rancher is down");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn http_get(ncc: NativeCallContext, cluster: &mut Cluster, service: &str, path: &str) -> RhaiResultOf<Dynamic> {
        let (cluster, service, path) = (cluster.clone(), service.to_owned(), path.to_owned());
        call(&ncc, |ctx| async move {
            let (status, body) = cluster.http_through(&ctx, &service, &path).await?;
            to_script(&json!({"status": status, "body": body}))
        })
    }
}
