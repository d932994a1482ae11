//! Values of the gpu-operator chart that fit K3s. No I/O.
use rhai::{Dynamic, Map};
use serde_json::{Value, json};

use crate::k3s::check_version;

/// Socket of K3s' containerd.
pub const SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// What K3s generates for containerd.
pub const CONTAINERD_CONFIG: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";

/// Chart values: `driver` is a version, or `preinstalled`.
#[must_use]
pub fn operator_values(driver: &str, extra: Option<&Value>) -> Value {
    let preinstalled = driver == "preinstalled";
    // Exists: the chart's own tolerations ask for an empty value and miss K3s' "true"
    let anywhere = json!([{"operator": "Exists"}]);
    let mut v = json!({
        "driver": {
            "enabled": !preinstalled,
            "upgradePolicy": {"autoUpgrade": true, "maxParallelUpgrades": 1, "drain": {"enable": false}},
        },
        "toolkit": {"enabled": true, "env": [
            {"name": "CONTAINERD_SOCKET", "value": SOCKET},
            {"name": "CONTAINERD_CONFIG", "value": CONTAINERD_CONFIG},
            {"name": "CONTAINERD_RUNTIME_CLASS", "value": "nvidia"},
            {"name": "CONTAINERD_SET_AS_DEFAULT", "value": "false"},
            {"name": "RUNTIME_CONFIG_SOURCE", "value": "file"},
        ]},
        "cdi": {"enabled": true},
        "mig": {"strategy": "single"},
        "dcgmExporter": {"enabled": true},
        "daemonsets": {"tolerations": anywhere.clone()},
        "operator": {"tolerations": anywhere.clone()},
        "node-feature-discovery": {
            "worker": {"tolerations": anywhere.clone()}, "master": {"tolerations": anywhere.clone()},
            "gc": {"tolerations": anywhere},
        },
    });
    if !preinstalled && !driver.is_empty() {
        v["driver"]["version"] = driver.into();
    }
    if let Some(extra) = extra {
        merge(&mut v, extra);
    }
    v
}

fn merge(a: &mut Value, b: &Value) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (k, v) in y {
                merge(x.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
        (a, b) => *a = b.clone(),
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
pub fn check_driver(driver: &str) -> crate::core::error::OpResult<()> {
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
    Err(crate::core::error::OpError::invalid(format!("`{driver}` is not a driver version")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_k3s() {
        let v = operator_values("580.126.09", None);
        assert_eq!(v["driver"]["version"], "580.126.09");
        assert_eq!(v["toolkit"]["env"][0]["value"], SOCKET);
        assert_eq!(v["daemonsets"]["tolerations"][0]["operator"], "Exists");
        let v = operator_values("preinstalled", Some(&json!({"mig": {"strategy": "mixed"}})));
        assert_eq!((v["driver"]["enabled"].as_bool(), v["mig"]["strategy"].as_str()), (Some(false), Some("mixed")));
        assert!(check_driver("580.126.09").is_ok() && check_driver("v580").is_err());
        assert!(!as_map(&v).is_empty());
    }
}
