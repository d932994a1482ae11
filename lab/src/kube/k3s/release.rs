//! What a release of K3s carries: images and versions of its parts. Grade: source (release notes and image lists of
//! K3s 1.33 to 1.36; what lies outside of them has the nearest row).

/// Parts of a release; images without their registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// `mirrored-coredns-coredns`.
    pub coredns: &'static str,
    /// `mirrored-library-traefik`.
    pub traefik: &'static str,
    /// The chart of Traefik.
    pub traefik_chart: &'static str,
    /// `mirrored-metrics-server`.
    pub metrics_server: &'static str,
    /// `local-path-provisioner`.
    pub local_path: &'static str,
    /// `mirrored-library-busybox`.
    pub busybox: &'static str,
    /// `klipper-helm`.
    pub klipper_helm: &'static str,
    /// `klipper-lb`.
    pub klipper_lb: &'static str,
    /// helm-controller, as its minor and patch.
    pub helm_controller: (u32, u32),
}

const fn parts(
    coredns: &'static str,
    traefik: (&'static str, &'static str),
    metrics_server: &'static str,
    local_path: &'static str,
    busybox: &'static str,
    klipper: (&'static str, &'static str),
    helm_controller: (u32, u32),
) -> Parts {
    Parts {
        coredns,
        traefik: traefik.0,
        traefik_chart: traefik.1,
        metrics_server,
        local_path,
        busybox,
        klipper_helm: klipper.0,
        klipper_lb: klipper.1,
        helm_controller,
    }
}

/// All minors are released together, each time with the same parts: the rounds, from summer 2025 on.
const ROUNDS: &[Parts] = &[
    parts(
        "1.12.1",
        ("3.3.6", "34.2.1+up34.2.0"),
        "v0.7.2",
        "v0.0.31",
        "1.36.1",
        ("v0.9.8-build20250709", "v0.4.13"),
        (16, 13),
    ),
    parts(
        "1.12.3",
        ("3.3.6", "34.2.1+up34.2.0"),
        "v0.8.0",
        "v0.0.32",
        "1.36.1",
        ("v0.9.8-build20250709", "v0.4.13"),
        (16, 13),
    ),
    parts(
        "1.13.1",
        ("3.5.1", "37.1.1+up37.1.0"),
        "v0.8.0",
        "v0.0.32",
        "1.36.1",
        ("v0.9.10-build20251111", "v0.4.13"),
        (16, 16),
    ),
    parts(
        "1.13.1",
        ("3.5.1", "37.1.1+up37.1.0"),
        "v0.8.0",
        "v0.0.32",
        "1.37.0",
        ("v0.9.10-build20251111", "v0.4.13"),
        (16, 17),
    ),
    parts(
        "1.14.0",
        ("3.6.7", "38.0.201+up38.0.2"),
        "v0.8.0",
        "v0.0.34",
        "1.37.0",
        ("v0.9.12-build20251215", "v0.4.13"),
        (16, 17),
    ),
    parts(
        "1.14.1",
        ("3.6.7", "38.0.201+up38.0.2"),
        "v0.8.1",
        "v0.0.34",
        "1.37.0",
        ("v0.9.14-build20260210", "v0.4.14"),
        (16, 17),
    ),
    parts(
        "1.14.2",
        ("3.6.10", "39.0.201+up39.0.2"),
        "v0.8.1",
        "v0.0.35",
        "1.37.0",
        ("v0.9.14-build20260309", "v0.4.15"),
        (16, 17),
    ),
    parts(
        "1.14.2",
        ("3.6.12", "39.0.701+up39.0.7"),
        "v0.8.1",
        "v0.0.35",
        "1.37.0",
        ("v0.9.15-build20260324", "v0.4.15"),
        (17, 1),
    ),
    parts(
        "1.14.3",
        ("3.6.13", "39.0.701+up39.0.7"),
        "v0.8.1",
        "v0.0.35",
        "1.37.0",
        ("v0.9.17-build20260422", "v0.4.17"),
        (17, 1),
    ),
    parts(
        "1.14.4",
        ("3.7.4", "40.1.3+up40.1.0"),
        "v0.8.1",
        "v0.0.36",
        "1.37.0",
        ("v0.11.1-build20260615", "v0.4.17"),
        (17, 1),
    ),
    parts(
        "1.14.6",
        ("3.7.8", "40.1.4+up40.1.0"),
        "v0.9.0",
        "v0.0.36",
        "1.37.0",
        ("v0.13.3-build20260727", "v0.4.17"),
        (17, 7),
    ),
    parts(
        "1.14.6",
        ("3.7.8", "40.1.4+up40.1.0"),
        "v0.9.0",
        "v0.0.37",
        "1.37.0",
        ("v0.13.3-build20260727", "v0.4.17"),
        (17, 7),
    ),
];

fn minor_patch(version: &str) -> (u32, u32) {
    gpuhost_stdlib::wire::k3s::minor_patch(version).unwrap_or((34, 0))
}

/// The round of releases that a version belongs to, counted from summer 2025.
#[must_use]
pub fn round(version: &str) -> usize {
    let (minor, patch) = minor_patch(version);
    // the first patch of each minor came so many rounds after the first row
    let at = match minor {
        0..=32 => 0,
        33 => i64::from(patch) - 4,
        34 => i64::from(patch),
        35 => i64::from(patch) + 3,
        36 => i64::from(patch) + 7,
        _ => i64::MAX,
    };
    at.clamp(0, ROUNDS.len() as i64 - 1) as usize
}

/// The parts of a release.
#[must_use]
pub fn parts_of(version: &str) -> &'static Parts {
    &ROUNDS[round(version)]
}

/// The image of pods' sandboxes.
#[must_use]
pub fn pause(version: &str) -> &'static str {
    if round(version) >= 10 { "3.10.2" } else { "3.6" }
}

/// Containerd, as a node tells it.
#[must_use]
pub fn containerd(version: &str) -> &'static str {
    let (minor, patch) = minor_patch(version);
    match (minor, patch) {
        (0..=31, _) => "containerd://1.7.23-k3s2",
        (32, _) | (33, 0..=3) => "containerd://2.0.5-k3s2",
        (33, 4..=5) => "containerd://2.1.4-k3s1",
        (33, 6..=8) => "containerd://2.1.5-k3s1.33",
        (33, 9) => "containerd://2.2.2-k3s1.33",
        (33, 10..=11) => "containerd://2.2.3-k3s1.33",
        (33, 12) => "containerd://2.2.4-k3s1.33",
        (33, _) => "containerd://2.2.5-k3s1.33",
        (34, 0..=1) => "containerd://2.1.4-k3s2",
        (34, 2..=4) | (35, 0..=1) => "containerd://2.1.5-k3s1",
        (34, 5) | (35, 2) => "containerd://2.2.2-k3s1",
        (34, 6..=7) | (35, 3..=4) | (36, 0) => "containerd://2.2.3-k3s1",
        (34, 8) | (35, 5) => "containerd://2.2.4-k3s2",
        (34, 9..=10) | (35, 6..=7) => "containerd://2.2.5-k3s2",
        (34 | 35, _) => "containerd://2.2.7-k3s1",
        (36, 1) => "containerd://2.3.1-k3s2",
        (36, 2..=3) => "containerd://2.3.2-k3s2",
        (36, _) => "containerd://2.3.4-k3s1.36",
        _ => "containerd://2.3.4-k3s1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_one_round_carry_the_same_parts() {
        let june = parts_of("v1.34.9+k3s1");
        assert_eq!((june.coredns, june.traefik, june.local_path), ("1.14.4", "3.7.4", "v0.0.36"));
        for same in ["v1.33.13+k3s1", "v1.35.6+k3s1", "v1.36.2+k3s1"] {
            assert_eq!(parts_of(same), june, "{same}");
        }
        assert_eq!(parts_of("v1.34.2+k3s1").coredns, "1.13.1");
        assert_eq!(parts_of("v1.36.4+k3s1").local_path, "v0.0.37");
        assert_eq!(parts_of("v1.31.2+k3s1").metrics_server, "v0.7.2");
        assert_eq!(containerd("v1.34.9+k3s1"), "containerd://2.2.5-k3s2");
    }
}
