//! What the platform's programs answer on their own ports, as far as their documentation says it; the rest says that it
//! is not simulated. Grade: docs.
use super::controllers::images;
use super::hooks::ServiceAnswer;

/// An endpoint of a program: path, content type, body.
type Row = (&'static str, &'static str, &'static str);

const TEXT: &str = "text/plain; charset=utf-8";

/// Programs by the end of their image's repository.
const PROGRAMS: &[(&str, &[Row])] = &[
    (
        "prometheus/prometheus",
        &[("/-/ready", TEXT, "Prometheus Server is Ready.\n"), ("/-/healthy", TEXT, "Prometheus Server is Healthy.\n")],
    ),
    ("prometheus/alertmanager", &[("/-/ready", TEXT, "OK"), ("/-/healthy", TEXT, "OK")]),
    ("grafana/grafana", &[("/api/health", "application/json", "{\n  \"database\": \"ok\"\n}")]),
    ("k8s/dcgm-exporter", &[("/health", TEXT, "OK")]),
    ("nvidia/gpu-operator", &[]),
    ("prometheus/node-exporter", &[]),
    ("prometheus-operator/prometheus-operator", &[("/healthz", TEXT, "")]),
    ("kube-state-metrics/kube-state-metrics", &[("/healthz", TEXT, "OK"), ("/livez", TEXT, "OK")]),
    ("jetstack/cert-manager-controller", &[]),
    ("jetstack/cert-manager-webhook", &[]),
    ("jetstack/cert-manager-cainjector", &[]),
];

/// The answer of the program in `image` to a GET of `path`; `None` for a program that is none of the platform's.
pub(super) fn of(image: &str, path: &str) -> Option<ServiceAnswer> {
    let repository = images::repository(image);
    let answer = |status, content_type: &str, body: String| ServiceAnswer {
        status,
        content_type: content_type.to_owned(),
        body: body.into_bytes(),
    };
    if repository.ends_with("configurable-http-proxy") {
        // its API wants the token that only the hub has
        return Some(answer(403, TEXT, String::new()));
    }
    let (_, rows) = PROGRAMS.iter().find(|(name, _)| repository.ends_with(name))?;
    let path = path.split('?').next().unwrap_or(path);
    if let Some((_, kind, body)) = rows.iter().find(|r| r.0 == path) {
        return Some(answer(200, kind, (*body).to_owned()));
    }
    let known: Vec<&str> = rows.iter().map(|r| r.0).collect();
    let rest = if known.is_empty() { String::new() } else { format!("; it answers {}", known.join(", ")) };
    let name = repository.rsplit('/').next().unwrap_or(repository);
    Some(answer(501, TEXT, format!("the lab does not simulate {path} of {name}{rest}\n")))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn programs_of_the_platform_say_what_they_are_known_to_say() {
        let ready = of("quay.io/prometheus/prometheus:v3.11.3-distroless", "/-/ready").unwrap();
        assert_eq!((ready.status, ready.body), (200, b"Prometheus Server is Ready.\n".to_vec()));
        let other = of("docker.io/grafana/grafana:12.2.1", "/d/x?y=1").unwrap();
        assert!(other.status == 501 && String::from_utf8_lossy(&other.body).contains("/d/x of grafana"));
        assert!(of("nginx:1.29", "/").is_none());
    }
}
