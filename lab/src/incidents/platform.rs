//! Faults of JupyterHub, Rancher and cert-manager.
use serde_json::json;

use super::tools::{cluster, scale, values};
use super::{Fault, On};

const Z2JH: &str = "Zero to JupyterHub documentation; seed troubleshooting guide, JupyterHub chapter";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "hub-down",
        on: On::Cluster,
        what: "the hub was scaled to nothing",
        source: "API server's service proxy: no endpoints available for service",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "jupyterhub", "hub", 0)),
        hands: None,
    },
    Fault {
        name: "hub-token",
        on: On::Release("jupyterhub"),
        what: "the hub's service token is not the one that verify has",
        source: "JupyterHub REST API: 403 Missing or invalid credentials",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                secret_values(cx, t, |v| v["hub"]["services"]["gpuhost-verify"]["apiToken"] = json!("0000000000000000"))
            })
        },
        hands: None,
    },
    Fault {
        name: "hub-open",
        on: On::Release("jupyterhub"),
        what: "the hub's authenticator is the dummy: anybody logs in",
        source: "Zero to JupyterHub documentation: the default authenticator is dummy",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, t, |v| v["hub"]["config"]["JupyterHub"]["authenticator_class"] = json!("dummy"))
            })
        },
        hands: None,
    },
    Fault {
        name: "spawn-image",
        on: On::Release("jupyterhub"),
        what: "the GPU profile's image was removed from its registry",
        source: "seed: removed Docker Hub images; kubelet: ImagePullBackOff",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                profile(cx, t, |p| {
                    p["kubespawner_override"]["image"] = json!("quay.io/jupyter/pytorch-notebook:does-not-exist")
                })
            })
        },
        hands: None,
    },
    Fault {
        name: "spawn-gpus",
        on: On::Release("jupyterhub"),
        what: "the GPU profile asks for more GPUs than any node has",
        source: "kube-scheduler: Insufficient nvidia.com/gpu",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                profile(cx, t, |p| p["kubespawner_override"]["extra_resource_limits"]["nvidia.com/gpu"] = json!("16"))
            })
        },
        hands: None,
    },
    Fault {
        name: "spawn-resource",
        on: On::Release("jupyterhub"),
        what: "the GPU profile asks for instances of cards that are not cut, as after a change of the MIG strategy",
        source: "kube-scheduler: Insufficient nvidia.com/mig-1g.5gb; NVIDIA documentation: resources by MIG strategy",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                profile(cx, t, |p| {
                    p["kubespawner_override"]["extra_resource_limits"] = json!({"nvidia.com/mig-1g.5gb": "1"})
                })
            })
        },
        hands: None,
    },
    Fault {
        name: "spawn-iptables",
        on: On::Release("jupyterhub"),
        what: "the values lost blockWithIptables: false: the container that blocks the cloud's metadata finds no tables in the kernel",
        source: "issues jupyterhub/zero-to-jupyterhub-k8s#3355, #3356: can't initialize iptables table `filter'; seed troubleshooting guide, JupyterHub chapter",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, t, |v| v["singleuser"]["cloudMetadata"] = json!({"blockWithIptables": true}))
            })
        },
        hands: None,
    },
    Fault {
        name: "pull-rate-limited",
        on: On::Cluster,
        what: "a node's unused images were cleaned away, and Docker Hub lets nobody pull without a login for now",
        source: "Docker documentation, pull rate limit: toomanyrequests; containerd: unexpected status 429 Too Many Requests",
        make: |lab, w, _| {
            w.pulls_limited = true;
            cluster(lab, w, |cx| {
                let pod = cx.list_in("pods", "scratch-provisioner").first().map(|p| (*p).clone());
                let pod = pod.ok_or("the cluster has no scratch provisioner")?;
                let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
                for n in cx.c.nodes.values_mut() {
                    n.images.remove(&image);
                }
                cx.delete("pods", "scratch-provisioner", pod["metadata"]["name"].as_str().unwrap_or_default());
                Ok(())
            })
        },
        hands: Some(|_, w, _| {
            w.pulls_limited = false;
            Ok(())
        }),
    },
    Fault {
        name: "spawn-class",
        on: On::Release("jupyterhub"),
        what: "the users' volumes ask for a storage class that does not exist",
        source: Z2JH,
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, t, |v| v["singleuser"]["storage"]["dynamic"]["storageClass"] = json!("longhorn"))
            })
        },
        hands: None,
    },
    Fault {
        name: "rancher-down",
        on: On::Cluster,
        what: "Rancher was scaled to nothing",
        source: "API server's service proxy: no endpoints available for service",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "cattle-system", "rancher", 0)),
        hands: None,
    },
    Fault {
        name: "rancher-hostname",
        on: On::Release("rancher"),
        what: "Rancher's host name is not that of the site file: its address answers 404",
        source: "Rancher documentation: hostname; ingress default backend 404",
        make: |lab, w, t| cluster(lab, w, |cx| values(cx, t, |v| v["hostname"] = json!("rancher.old.example"))),
        hands: None,
    },
    Fault {
        name: "certificate-missing",
        on: On::Release("rancher"),
        what: "somebody deleted the CA of Rancher and the certificate that it had signed: browsers see Traefik's own",
        source: "cert-manager documentation, CA issuers: ErrGetKeyPair, Error getting keypair for CA issuer; Traefik documentation: TRAEFIK DEFAULT CERT",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                cx.delete("secrets", "cattle-system", "tls-rancher");
                cx.delete("secrets", "cattle-system", "tls-rancher-ingress");
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "cert-webhook-down",
        on: On::Cluster,
        what: "cert-manager's webhook was scaled to nothing: certificates cannot be made",
        source: "cert-manager documentation, troubleshooting the webhook",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "cert-manager", "cert-manager-webhook", 0)),
        hands: None,
    },
    Fault {
        name: "hub-proxy-down",
        on: On::Cluster,
        what: "the hub's proxy was scaled to nothing: nobody reaches the hub",
        source: "Zero to JupyterHub documentation: the proxy routes all requests; Service without endpoints refuses",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "jupyterhub", "proxy", 0)),
        hands: None,
    },
    Fault {
        name: "ingress-down",
        on: On::Cluster,
        what: "Traefik was scaled to nothing: no host name is served",
        source: "K3s documentation, networking services: Traefik and ServiceLB; kube-proxy rejects a Service without endpoints",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "kube-system", "traefik", 0)),
        hands: None,
    },
    Fault {
        name: "dns-down",
        on: On::Cluster,
        what: "CoreDNS was scaled to nothing: pods resolve no names",
        source: "Kubernetes documentation, debugging DNS resolution; K3s packaged components",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "kube-system", "coredns", 0)),
        hands: None,
    },
    Fault {
        name: "metrics-down",
        on: On::Cluster,
        what: "metrics-server was scaled to nothing",
        source: "metrics-server FAQ: Metrics API not available; K3s packaged components",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "kube-system", "metrics-server", 0)),
        hands: None,
    },
];

fn profile(cx: &mut crate::kube::cx::Cx, release: &str, f: impl FnOnce(&mut serde_json::Value)) -> Result<(), String> {
    let mut found = false;
    values(cx, release, |v| {
        let list = v["singleuser"]["profileList"].as_array_mut();
        if let Some(p) = list.and_then(|l| l.iter_mut().find(|p| p["slug"] == "gpu")) {
            found = true;
            f(p);
        }
    })?;
    found.then_some(()).ok_or_else(|| format!("release `{release}` has no profile `gpu`"))
}

/// The secret values of a release, where gpuhost keeps them.
fn secret_values(
    cx: &mut crate::kube::cx::Cx,
    release: &str,
    f: impl FnOnce(&mut serde_json::Value),
) -> Result<(), String> {
    use crate::kube::text::{b64, s, unb64};
    let name = format!("gpuhost-values-{release}");
    let secret =
        cx.get("secrets", "kube-system", &name).cloned().ok_or_else(|| format!("there is no Secret `{name}`"))?;
    let text = unb64(s(&secret, "/data/values.yaml")).unwrap_or_default();
    let mut v = crate::kube::objects::parse_yaml(&String::from_utf8_lossy(&text));
    f(&mut v);
    let new = b64(v.to_string().as_bytes());
    cx.update("secrets", "kube-system", &name, |o| o["data"]["values.yaml"] = json!(new));
    // the controller looks at the chart again when it is touched
    cx.update("helmcharts.helm.cattle.io", "kube-system", release, |o| {
        o["metadata"]["annotations"]["lab/touched"] = json!("1");
    });
    Ok(())
}
