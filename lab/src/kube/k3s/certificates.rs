//! K3s' leaf certificates: valid for a year, renewed at a start shortly before they end.
use serde_json::{Value, json};

use super::super::text::stamp;
use crate::world::World;

const DAY_MS: u64 = 86_400_000;

/// Days before the end within which a start renews. Grade: docs (release notes of 1.31.9, 1.32.5, 1.33.1).
fn window(version: &str) -> u64 {
    match gpuhost_stdlib::wire::k3s::minor_patch(version).unwrap_or((34, 0)) {
        (31, p) if p < 9 => 90,
        (32, p) if p < 5 => 90,
        (33, 0) => 90,
        (m, _) if m < 31 => 90,
        _ => 120,
    }
}

/// When the certificates of a process that starts now were issued.
#[must_use]
pub fn renewed(now_ms: u64, issued_ms: u64, version: &str) -> u64 {
    let end = issued_ms + 365 * DAY_MS;
    if issued_ms == 0 || end < now_ms + window(version) * DAY_MS { now_ms } else { issued_ms }
}

/// `k3s certificate rotate`: the next start makes new ones.
pub fn rotate(w: &mut World, vmid: u32) {
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.certificates_ms = 0;
    }
}

/// Rows of `k3s certificate check`.
#[must_use]
pub fn rows(w: &World, vmid: u32) -> Vec<Value> {
    let Some(p) = w.k3s.get(&vmid) else { return Vec::new() };
    let end = p.certificates_ms + 365 * DAY_MS;
    let left = end.saturating_sub(w.now_ms) / DAY_MS;
    let status = if left == 0 {
        "EXPIRED"
    } else if left < 120 {
        "WARNING"
    } else {
        "OK"
    };
    ["client-admin.crt", "client-kubelet.crt", "serving-kube-apiserver.crt", "serving-kubelet.crt"]
        .iter()
        .map(|f| {
            let subject = f.trim_end_matches(".crt").replace("client-", "").replace("serving-", "");
            json!({"filename": f, "subject": subject, "usages": "ClientAuth,ServerAuth", "expiryTime": stamp(end),
                "residualTime": format!("{left} days"), "status": status})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_renews_in_the_window_of_its_release() {
        let issued = DAY_MS;
        let at = |days_left: u64| issued + (365 - days_left) * DAY_MS;
        assert_eq!(renewed(at(200), issued, "v1.34.9+k3s1"), issued);
        assert_eq!(renewed(at(100), issued, "v1.34.9+k3s1"), at(100));
        assert_eq!(renewed(at(100), issued, "v1.33.0+k3s1"), issued);
        assert_eq!(renewed(at(80), issued, "v1.33.0+k3s1"), at(80));
        assert_eq!(renewed(5, 0, "v1.34.9+k3s1"), 5);
    }
}
