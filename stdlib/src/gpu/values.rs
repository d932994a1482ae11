//! Values of the gpu-operator chart that fit K3s. No I/O.
use rhai::{Dynamic, Map};
use serde_json::{Value, json};

use crate::core::error::{OpError, OpResult};
use crate::core::options::closest;
use crate::k3s::check_version;
use crate::wire::charts::GPU_OPERATOR;

/// Socket of K3s' containerd.
pub const SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// What K3s generates for containerd.
pub const CONTAINERD_CONFIG: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
/// What newer K3s lets `config.toml` import.
pub const DROP_IN: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/99-nvidia.toml";
/// ConfigMap of the sharing that gpuhost sets.
pub const SHARING: &str = "gpuhost-sharing";

/// How one card serves several pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One pod per card.
    None,
    /// In turns, without limits on memory.
    TimeSlicing(i64),
    /// At the same time, through the MPS daemon.
    Mps(i64),
}

impl Sharing {
    /// Sharing of these options.
    ///
    /// # Errors
    /// `invalid` when both are asked for, or for less than one.
    pub fn of(time_slicing: i64, mps: i64) -> OpResult<Self> {
        match (time_slicing, mps) {
            (1, 1) => Ok(Sharing::None),
            (n, 1) if n > 1 => Ok(Sharing::TimeSlicing(n)),
            (1, n) if n > 1 => Ok(Sharing::Mps(n)),
            (t, m) if t > 1 && m > 1 => {
                Err(OpError::invalid("options `time_slicing` and `mps` exclude each other")
                    .hint("leave one of them at 1"))
            }
            _ => Err(OpError::invalid("options `time_slicing` and `mps` count pods per card: 1 or more")),
        }
    }

    /// Pods per card.
    #[must_use]
    pub fn replicas(self) -> i64 {
        match self {
            Sharing::None => 1,
            Sharing::TimeSlicing(n) | Sharing::Mps(n) => n,
        }
    }

    /// The device plugin's ConfigMap; `None` for whole cards.
    #[must_use]
    pub fn config_map(self, namespace: &str) -> Option<Value> {
        let (word, n) = match self {
            Sharing::None => return None,
            Sharing::TimeSlicing(n) => ("timeSlicing", n),
            Sharing::Mps(n) => ("mps", n),
        };
        let resources = json!([{"name": super::inventory::RESOURCE, "replicas": n}]);
        let sharing = match word {
            "timeSlicing" => {
                json!({"renameByDefault": false, "failRequestsGreaterThanOne": true, "resources": resources})
            }
            _ => json!({"renameByDefault": false, "resources": resources}),
        };
        let config = json!({"version": "v1", "sharing": {word: sharing}});
        Some(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": SHARING, "namespace": namespace}, "data": {"any": config.to_string()}}))
    }
}

/// What the chart's values depend on.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'a> {
    /// K3s version, `v1.34.9+k3s1`; empty when it is not known.
    pub k3s: &'a str,
    /// A driver version, or `preinstalled`.
    pub driver: &'a str,
    /// `single`, `mixed` or `none`.
    pub mig: &'a str,
    /// Pods per card.
    pub sharing: Sharing,
    /// Which parts the operator brings.
    pub parts: Parts,
}

/// Parts of the operator that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The container toolkit.
    pub toolkit: bool,
    /// The exporter of the cards' metrics.
    pub dcgm: bool,
    /// The Container Device Interface.
    pub cdi: bool,
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}

/// Chart values for a cluster; `extra` goes over them.
#[must_use]
pub fn operator_values(fit: &Fit, extra: Option<&Value>) -> Value {
    let preinstalled = fit.driver == "preinstalled";
    // Exists: the chart's own tolerations ask for an empty value and miss K3s' "true"
    let anywhere = json!([{"operator": "Exists"}]);
    let mut env = vec![
        json!({"name": "CONTAINERD_SOCKET", "value": SOCKET}),
        json!({"name": "CONTAINERD_CONFIG", "value": CONTAINERD_CONFIG}),
        json!({"name": "CONTAINERD_RUNTIME_CLASS", "value": "nvidia"}),
        json!({"name": "CONTAINERD_SET_AS_DEFAULT", "value": "false"}),
        // the running containerd may speak a newer version than the file
        json!({"name": "RUNTIME_CONFIG_SOURCE", "value": "file"}),
    ];
    if minor(fit.k3s) >= 36 {
        env.push(json!({"name": "RUNTIME_DROP_IN_CONFIG", "value": DROP_IN}));
    }
    let mut v = json!({
        "driver": {
            "enabled": !preinstalled,
            "upgradePolicy": {"autoUpgrade": true, "maxParallelUpgrades": 1, "drain": {"enable": false}},
        },
        "toolkit": {"enabled": fit.parts.toolkit, "env": env},
        "cdi": {"enabled": fit.parts.cdi},
        "mig": {"strategy": fit.mig},
        "dcgmExporter": {"enabled": fit.parts.dcgm},
        "daemonsets": {"tolerations": anywhere.clone()},
        "operator": {"tolerations": anywhere.clone()},
        "node-feature-discovery": {
            "worker": {"tolerations": anywhere.clone()}, "master": {"tolerations": anywhere.clone()},
            "gc": {"tolerations": anywhere},
        },
    });
    if !preinstalled && !fit.driver.is_empty() {
        v["driver"]["version"] = fit.driver.into();
    }
    if fit.sharing != Sharing::None {
        v["devicePlugin"] = json!({"config": {"name": SHARING, "default": "any"}});
    }
    if let Some(extra) = extra {
        merge(&mut v, extra);
    }
    v
}

/// Keys that people set and the chart ignores: path, what works instead.
const INERT: &[(&str, &str)] = &[
    ("/devicePlugin/migStrategy", "option `mig` of gpu::ensure_operator (`mig.strategy`)"),
    ("/operator/defaultRuntime", "nothing: K3s' runtime is set by the toolkit"),
    ("/tolerations", "`daemonsets.tolerations`"),
    ("/nodeSelector", "labels `nvidia.com/gpu.deploy.*` of the nodes"),
];

/// Refuses values that the chart would ignore without a word.
///
/// # Errors
/// `invalid` naming the key and what works instead.
pub fn check_values(extra: &Value) -> OpResult<()> {
    for (path, instead) in INERT {
        if extra.pointer(path).is_some() {
            let key = path.trim_start_matches('/').replace('/', ".");
            return Err(
                OpError::invalid(format!("option `values`: the chart ignores `{key}`")).hint(format!("use {instead}"))
            );
        }
    }
    for key in extra.as_object().into_iter().flatten().map(|(k, _)| k) {
        if !GPU_OPERATOR.contains(&key.as_str()) {
            let e = OpError::invalid(format!("option `values`: the chart has no `{key}`"));
            return Err(match closest(key, GPU_OPERATOR.iter().copied()) {
                Some(k) => e.hint(format!("did you mean `{k}`?")),
                None => e.hint("look at the chart's values.yaml"),
            });
        }
    }
    Ok(())
}

/// `b` over `a`. Lists of environment variables are joined by name: one that is added does not take ours away.
fn merge(a: &mut Value, b: &Value) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (k, v) in y {
                let old = x.entry(k.clone()).or_insert(Value::Null);
                match (old.as_array_mut(), v.as_array()) {
                    (Some(ours), Some(theirs)) if k == "env" => join_env(ours, theirs),
                    _ => merge(old, v),
                }
            }
        }
        (a, b) => *a = b.clone(),
    }
}

fn join_env(ours: &mut Vec<Value>, theirs: &[Value]) {
    for v in theirs {
        match ours.iter_mut().find(|o| o["name"] == v["name"]) {
            Some(o) => *o = v.clone(),
            None => ours.push(v.clone()),
        }
    }
}

/// JSON as a script map, for the options of a release.
#[must_use]
pub fn as_map(v: &Value) -> Map {
    rhai::serde::to_dynamic(v).ok().and_then(Dynamic::try_cast).unwrap_or_default()
}

/// Whether a text is a driver version or `preinstalled`.
///
/// # Errors
/// `invalid` with the form.
pub fn check_driver(driver: &str) -> OpResult<()> {
    let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let numbers = driver.split('.').count() >= 2 && driver.split('.').all(digits);
    if driver == "preinstalled" || numbers {
        return Ok(());
    }
    let looks_like_k3s = check_version(driver).is_ok();
    let hint = if looks_like_k3s {
        "that is a K3s release"
    } else {
        "write for example `580.126.09`, or `preinstalled` when the image has a driver"
    };
    Err(OpError::invalid(format!("`{driver}` is not a driver version")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit<'a>(k3s: &'a str, driver: &'a str, sharing: Sharing) -> Fit<'a> {
        Fit { k3s, driver, mig: "single", sharing, parts: Parts { toolkit: true, dcgm: true, cdi: true } }
    }

    #[test]
    fn values_fit_k3s() {
        let v = operator_values(&fit("v1.34.9+k3s1", "580.126.09", Sharing::None), None);
        assert_eq!(v["driver"]["version"], "580.126.09");
        assert_eq!(v["toolkit"]["env"][0]["value"], SOCKET);
        assert_eq!(v["daemonsets"]["tolerations"][0]["operator"], "Exists");
        assert!(v["devicePlugin"].is_null() && !v.to_string().contains("RUNTIME_DROP_IN_CONFIG"));
        let more = json!({"mig": {"strategy": "mixed"}});
        let v = operator_values(&fit("v1.36.3+k3s1", "preinstalled", Sharing::TimeSlicing(4)), Some(&more));
        assert_eq!((v["driver"]["enabled"].as_bool(), v["mig"]["strategy"].as_str()), (Some(false), Some("mixed")));
        assert_eq!(v["devicePlugin"]["config"]["name"], SHARING);
        assert!(v.to_string().contains("config-v3.toml.d/99-nvidia.toml"));
        let parts = Parts { toolkit: false, dcgm: false, cdi: false };
        let v = operator_values(&Fit { parts, ..fit("v1.34.9+k3s1", "preinstalled", Sharing::None) }, None);
        let off = |key: &str| v[key]["enabled"] == false;
        assert!(off("toolkit") && off("dcgmExporter") && off("cdi"));
        let more = json!({"toolkit": {"env": [{"name": "X", "value": "1"}, {"name": "CONTAINERD_SET_AS_DEFAULT", "value": "true"}]}});
        let v = operator_values(&fit("v1.34.9+k3s1", "580.126.09", Sharing::None), Some(&more));
        let env = |name: &str| {
            let all = v["toolkit"]["env"].as_array().unwrap().iter();
            all.filter(|e| e["name"] == name).map(|e| e["value"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((env("CONTAINERD_SOCKET"), env("X")), (vec![SOCKET.to_owned()], vec!["1".to_owned()]));
        assert_eq!(env("CONTAINERD_SET_AS_DEFAULT"), ["true"]);
        assert!(check_driver("580.126.09").is_ok() && check_driver("v580").is_err());
        assert!(!as_map(&v).is_empty());
    }

    #[test]
    fn inert_and_unknown_values_are_refused() {
        assert!(check_values(&json!({"dcgmExporter": {"enabled": false}})).is_ok());
        let e = check_values(&json!({"devicePlugin": {"migStrategy": "single"}})).unwrap_err();
        assert!(e.message.contains("devicePlugin.migStrategy"), "{e}");
        let e = check_values(&json!({"toolkitt": {}})).unwrap_err();
        assert_eq!(e.hint.as_deref(), Some("did you mean `toolkit`?"));
    }

    #[test]
    fn sharing_is_one_or_the_other() {
        assert_eq!(Sharing::of(1, 1).unwrap(), Sharing::None);
        assert_eq!(Sharing::of(4, 1).unwrap().replicas(), 4);
        assert!(Sharing::of(4, 4).is_err() && Sharing::of(0, 1).is_err());
        let map = Sharing::Mps(3).config_map("gpu-operator").unwrap();
        assert!(map["data"]["any"].as_str().unwrap().contains("\"mps\""));
    }
}
