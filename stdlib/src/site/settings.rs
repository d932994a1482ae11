//! Values of `[k3s]` and `[gpu]` that their programs would not take.
use super::source::{Finding, Source};
use super::types::Site;

/// Adds what K3s or the GPU operator would refuse or skip.
pub(super) fn check(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let k3s = serde_json::to_value(&site.k3s).unwrap_or_default();
    for slip in crate::k3s::settings::slips(&k3s) {
        let mut f = src.value(&format!("k3s.{}", slip.path), slip.message, Some(slip.hint));
        f.warning = slip.warning;
        out.push(f);
    }
    if let Some(driver) = site.gpu.get("driver").and_then(toml::Value::as_str)
        && let Err(e) = crate::gpu::check_driver(driver)
    {
        out.push(src.value("gpu.driver", e.message, e.hint));
    }
}
