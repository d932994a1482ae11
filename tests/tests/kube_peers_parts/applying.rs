//! From client-side to server-side apply and back, with other managers in between.
use super::{Tool, holds};

type Part = fn(&Tool<'_>);

/// All parts by name.
pub const PARTS: &[(&str, Part)] = &[("server-side apply", handed_over), ("old documents", documents)];

const ALL: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {team: front}, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.27
        ports: [{containerPort: 80}]
        livenessProbe: {httpGet: {path: /, port: 80}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {ingressClassName: traefik, defaultBackend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 2}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: applied-here, labels: {a: b}}
provisioner: rancher.io/local-path
parameters: {a: b}
";

fn handed_over(k: &Tool<'_>) {
    k.try_run("delete namespace applying --ignore-not-found --timeout=120s");
    k.run("create namespace applying");
    let apply = |more: &str, text: &str| {
        let line = format!("apply -n applying -f - {more}");
        k.feed(&line.split_whitespace().collect::<Vec<_>>(), text)
    };
    let last = || {
        let path = "-o=jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}";
        k.run(&format!("get deployment web -n applying {path}"))
    };
    assert_eq!(apply("", ALL).code, 0);
    let said = apply("--server-side", ALL);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert_eq!(said.out.matches("serverside-applied").count(), 4, "{}", said.out);
    holds(&last(), &["nginx:1.27", "livenessProbe"]);
    holds(&k.run("get storageclass applied-here -o jsonpath={.parameters.a}{.metadata.labels.a}"), &["bb"]);
    let less = ALL
        .replace("        livenessProbe: {httpGet: {path: /, port: 80}}\n", "")
        .replace(", annotations: {team: front}", "");
    let said = apply("--server-side", &less);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let web = k.run("get deployment web -n applying -o yaml");
    assert!(!web.contains("livenessProbe") && !web.contains("team: front"), "{web}");
    assert!(!last().contains("livenessProbe"), "{}", last());
    let newer = less.replace("nginx:1.27", "nginx:1.28");
    let said = apply("--server-side --field-manager=other", &newer);
    assert_ne!(said.code, 0, "{}", said.out);
    holds(
        &said.err,
        &[
            "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.template.spec.containers[name=\"web\"].image",
            "--force-conflicts",
        ],
    );
    assert_eq!(apply("--server-side --field-manager=other --force-conflicts", &newer).code, 0);
    holds(
        &k.run("get deployment web -n applying -o jsonpath={.spec.template.spec.containers[0].image}"),
        &["nginx:1.28"],
    );
    k.run("scale deployment web -n applying --replicas=2");
    let said = apply("--server-side", &newer);
    assert_ne!(said.code, 0, "{}", said.out);
    holds(&said.err, &["with subresource \"scale\" using apps/v1: .spec.replicas"]);
    let said = apply("", &newer);
    assert_eq!(said.code, 0, "{}", said.err);
    holds(&said.out, &["deployment.apps/web configured"]);
    holds(&apply("", &newer).out, &["deployment.apps/web unchanged", "ingress.networking.k8s.io/web unchanged"]);
    k.run("delete storageclass applied-here");
    k.run("delete namespace applying --timeout=300s");
}

fn documents(k: &Tool<'_>) {
    holds(
        &k.run("explain deployment.spec.template --output=plaintext-openapiv2"),
        &["KIND:     Deployment", "RESOURCE: template <Object>", "Template describes the pods"],
    );
    holds(&k.run("explain pods.spec --recursive --output=plaintext-openapiv2"), &["containers\t<[]Object>"]);
}
