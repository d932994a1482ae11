//! Kubernetes of the lab: K3s processes in guests, the clusters they form, their controllers and charts.
mod answers;
pub mod api;
pub mod bare;
pub mod charts;
pub mod container;
pub mod controllers;
pub mod cx;
pub mod dynamic;
pub mod hooks;
pub mod ingress;
pub mod k3s;
pub mod objects;
pub mod objectset;
pub mod podmap;
pub mod schema;
pub mod state;
pub mod store;
pub mod text;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::{Event, World};
use cx::{with_cluster, with_pods};

pub use k3s::reach::filter_changed;
pub use k3s::{guest_down, k3s_journal, k3s_refused, k3s_start, k3s_stop, k3s_uninstalled, k3s_unit};
pub use state::{K3sProcess, Role, UnitState};

/// Things that happen later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KubeEvent {
    /// A K3s process reaches the next stage of its start.
    Start {
        /// Guest.
        vmid: u32,
        /// Start it belongs to.
        generation: u64,
        /// What comes next.
        stage: k3s::Stage,
    },
    /// Objects changed: the controllers look at them.
    Reconcile {
        /// Cluster id.
        cluster: String,
    },
    /// A pod takes its next step.
    Pod {
        /// Cluster id.
        cluster: String,
        /// Pod.
        uid: String,
        /// Step it belongs to.
        step: u64,
    },
    /// Something falls due for a container of a pod.
    Container {
        /// Cluster id.
        cluster: String,
        /// Pod.
        uid: String,
        /// Container.
        container: String,
        /// Run it belongs to.
        run: u64,
        /// What it is.
        due: state::Due,
    },
    /// A failed Job's pause is over.
    JobRetry {
        /// Cluster id.
        cluster: String,
        /// Namespace.
        ns: String,
        /// Name.
        name: String,
        /// Failures so far.
        failed: i64,
    },
    /// A finished Job goes.
    JobExpired {
        /// Cluster id.
        cluster: String,
        /// Namespace.
        ns: String,
        /// Name.
        name: String,
        /// The Job's uid.
        uid: String,
    },
    /// A controller wanted to look at an object again by now.
    Look {
        /// Cluster id.
        cluster: String,
        /// Resource (`deployments.apps`).
        resource: String,
        /// Namespace.
        ns: String,
        /// Name.
        name: String,
    },
    /// A node has been silent for 40 s.
    NodeSilent {
        /// Cluster id.
        cluster: String,
        /// Node.
        node: String,
    },
    /// The NVIDIA toolkit puts its runtimes on a node's disk.
    Toolkit {
        /// Guest.
        vmid: u32,
    },
    /// Fleet asks its repositories for new commits.
    Poll {
        /// Cluster id.
        cluster: String,
    },
    /// An etcd learner has made no progress for five minutes.
    Stalled {
        /// Cluster id.
        cluster: String,
        /// Guest that it lives in.
        vmid: u32,
    },
    /// A node has been silent for five minutes more.
    Evict {
        /// Cluster id.
        cluster: String,
        /// Node.
        node: String,
    },
}

/// What lives only while the lab runs (sockets, tasks); never saved.
#[derive(Default)]
pub struct Live {
    /// API servers by guest.
    pub api: api::Servers,
    /// Containers from inside.
    pub containers: container::Containers,
    logs: LogBell,
}

/// Rings when a container has written something.
struct LogBell(tokio::sync::watch::Sender<u64>);

impl Default for LogBell {
    fn default() -> Self {
        LogBell(tokio::sync::watch::channel(0).0)
    }
}

impl Live {
    /// A container has written something, or has ended.
    pub fn wrote(&self) {
        self.logs.0.send_modify(|n| *n += 1);
    }

    /// Rings when a container has written something.
    #[must_use]
    pub fn log_bell(&self) -> tokio::sync::watch::Receiver<u64> {
        self.logs.0.subscribe()
    }
}

/// Steps of pods that are settled together at most.
const TOGETHER: usize = 255;

fn pod_event(cx: &mut cx::Cx, e: KubeEvent) {
    match e {
        KubeEvent::Pod { uid, step, .. } => controllers::kubelet::step(cx, &uid, step),
        KubeEvent::Container { uid, container, run, due, .. } => {
            controllers::containers::due(cx, &uid, &container, run, &due);
        }
        _ => {}
    }
}

/// Handles an event that is due.
pub fn handle(lab: &Lab, w: &mut World, e: KubeEvent) {
    use controllers::{jobs, kubelet};
    match e {
        KubeEvent::Start { vmid, generation, stage } => k3s::stage(lab, w, vmid, generation, stage),
        KubeEvent::Reconcile { cluster } => {
            with_pods(lab, w, &cluster, |_| ());
        }
        KubeEvent::Pod { ref cluster, .. } | KubeEvent::Container { ref cluster, .. } => {
            let cluster = cluster.clone();
            with_pods(lab, w, &cluster, |cx| {
                pod_event(cx, e);
                // What falls due at the same moment is settled together.
                for _ in 0..TOGETHER {
                    let same = |e: &Event| {
                        matches!(e, Event::Kube(KubeEvent::Pod { cluster: c, .. } | KubeEvent::Container { cluster: c, .. })
                            if *c == cluster)
                    };
                    let Some(Event::Kube(e)) = cx.w.pop_due_if(same) else { return };
                    pod_event(cx, e);
                }
            });
        }
        KubeEvent::JobRetry { cluster, ns, name, failed } => {
            with_cluster(lab, w, &cluster, |cx| jobs::retry(cx, &ns, &name, failed));
        }
        KubeEvent::JobExpired { cluster, ns, name, uid } => {
            with_cluster(lab, w, &cluster, |cx| jobs::expired(cx, &ns, &name, &uid));
        }
        KubeEvent::Look { cluster, resource, ns, name } => {
            with_cluster(lab, w, &cluster, |cx| controllers::look_again(cx, &resource, &ns, &name));
        }
        KubeEvent::Toolkit { vmid } => controllers::gpu::toolkit_came(lab, w, vmid),
        KubeEvent::Poll { cluster } => {
            with_cluster(lab, w, &cluster, controllers::fleet::reconcile);
        }
        KubeEvent::Stalled { cluster, vmid } => k3s::join::stalled(lab, w, &cluster, vmid),
        KubeEvent::NodeSilent { cluster, node } => k3s::node::silent(lab, w, &cluster, &node),
        KubeEvent::Evict { cluster, node } => {
            with_cluster(lab, w, &cluster, |cx| kubelet::evict(cx, &node));
        }
    }
}

/// Lets the API servers of a loaded world listen again.
///
/// # Errors
/// When a port cannot be bound.
pub async fn resume(lab: &Lab) -> std::io::Result<()> {
    lab.with(|w| {
        let running: Vec<(u32, String)> = w
            .k3s
            .iter()
            .filter(|(_, p)| p.start.role == Role::Server && p.unit == Some(UnitState::Active))
            .filter_map(|(v, p)| Some((*v, p.cluster.clone()?)))
            .collect();
        for (vmid, id) in running {
            k3s::serve::up(lab, w, vmid, &id);
        }
        let ids: Vec<String> = w.clusters.keys().cloned().collect();
        for id in ids {
            with_cluster(lab, w, &id, |cx| {
                cx.c.vips.clear();
                k3s::vip::look(cx);
                controllers::shell::resume(cx);
            });
        }
    });
    Ok(())
}
