//! Traefik's chart and that of its definitions, as K3s serves them. Grade: source (rendered by helm).
use serde_json::{Value, json};

use super::Wanted;

/// What `traefik-crd` brings.
pub(super) const DEFINITIONS: &[&str] = &[
    "backendtlspolicies.gateway.networking.k8s.io",
    "gatewayclasses.gateway.networking.k8s.io",
    "gateways.gateway.networking.k8s.io",
    "grpcroutes.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
    "referencegrants.gateway.networking.k8s.io",
    "ingressroutes.traefik.io",
    "ingressroutetcps.traefik.io",
    "ingressrouteudps.traefik.io",
    "middlewares.traefik.io",
    "middlewaretcps.traefik.io",
    "serverstransports.traefik.io",
    "serverstransporttcps.traefik.io",
    "tlsoptions.traefik.io",
    "tlsstores.traefik.io",
    "traefikservices.traefik.io",
];

/// The version in the address of a chart that K3s serves.
pub(super) fn version(w: &Wanted) -> String {
    let file = w.chart.rsplit('/').next().unwrap_or_default().trim_end_matches(".tgz");
    file.trim_start_matches(&format!("{}-", w.release)).to_owned()
}

/// The objects of a chart that K3s serves.
pub(super) fn packaged(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    match w.release.as_str() {
        "traefik-crd" => (DEFINITIONS.to_vec(), Vec::new()),
        "traefik" => (Vec::new(), objects(w)),
        _ => (Vec::new(), Vec::new()),
    }
}

fn objects(w: &Wanted) -> Vec<Value> {
    let ns = w.namespace.as_str();
    let select = json!({"app.kubernetes.io/name": "traefik", "app.kubernetes.io/instance": format!("traefik-{ns}")});
    let mut labels = select.clone();
    labels["helm.sh/chart"] = json!(format!("traefik-{}", version(w).replace('+', "_")));
    labels["app.kubernetes.io/managed-by"] = json!("Helm");
    let role = format!("traefik-{ns}");
    let rbac = "rbac.authorization.k8s.io";
    let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "traefik", "namespace": ns},
        "automountServiceAccountToken": false});
    account["metadata"]["labels"] = labels.clone();
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "traefik", "labels": labels,
        "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "traefik.io/ingress-controller"}});
    vec![
        account,
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": role, "labels": labels}, "rules": rules()}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": role, "labels": labels},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "traefik", "namespace": ns}]}),
        service(w, &labels, &select),
        deployment(w, &labels, &select),
        class,
    ]
}

fn rules() -> Value {
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let look = ["get", "list", "watch"];
    let own: Vec<&str> = DEFINITIONS.iter().filter_map(|d| d.strip_suffix(".traefik.io")).collect();
    let ingresses = ["extensions", "networking.k8s.io"];
    json!([
        rule(&[""], &["configmaps", "nodes", "services"], &look),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"]),
        rule(&[""], &["pods"], &["get"]),
        rule(&[""], &["secrets"], &look),
        rule(&ingresses, &["ingressclasses", "ingresses"], &look),
        rule(&ingresses, &["ingresses/status"], &["update"]),
        rule(&[""], &["namespaces"], &["list", "watch"]),
        rule(&["traefik.io"], &own, &look),
    ])
}

fn service(w: &Wanted, labels: &Value, select: &Value) -> Value {
    let told = &w.values["service"];
    let kind = told["spec"]["type"].as_str().or(told["type"].as_str()).unwrap_or("LoadBalancer");
    let port = |name: &str, number: u16| json!({"port": number, "name": name, "targetPort": name, "protocol": "TCP"});
    let mut spec = json!({"type": kind, "selector": select, "ipFamilyPolicy": "PreferDualStack",
        "ports": [port("web", 80), port("websecure", 443)]});
    for (k, v) in told["spec"].as_object().into_iter().flatten() {
        spec[k] = v.clone();
    }
    let mut out = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "traefik", "namespace": w.namespace, "labels": labels}, "spec": spec});
    if told["annotations"].is_object() {
        out["metadata"]["annotations"] = told["annotations"].clone();
    }
    out
}

fn deployment(w: &Wanted, labels: &Value, select: &Value) -> Value {
    let v = &w.values;
    let ports = [("metrics", 9100), ("traefik", 8080), ("web", 8000), ("websecure", 8443)];
    let mut args: Vec<String> = ports.iter().map(|(n, p)| format!("--entryPoints.{n}.address=:{p}/tcp")).collect();
    let ingress = "--providers.kubernetesingress";
    args.extend(
        [
            "--api.dashboard=true",
            "--ping=true",
            "--metrics.prometheus=true",
            "--metrics.prometheus.entrypoint=metrics",
            "--providers.kubernetescrd",
            "--providers.kubernetescrd.allowEmptyServices=true",
            ingress,
        ]
        .map(str::to_owned),
    );
    args.push(format!("{ingress}.allowEmptyServices=true"));
    args.push(format!("{ingress}.ingressendpoint.publishedservice={}/traefik", w.namespace));
    args.extend(["--entryPoints.websecure.http.tls=true", "--log.level=INFO"].map(str::to_owned));
    args.extend(v["additionalArguments"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let probe = |failures: u32| {
        json!({"httpGet": {"path": "/ping", "port": 8080, "scheme": "HTTP"}, "failureThreshold": failures,
            "initialDelaySeconds": 2, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 2})
    };
    let image = &v["image"];
    let mut pod = json!({
        "serviceAccountName": "traefik", "automountServiceAccountToken": true, "terminationGracePeriodSeconds": 60,
        "hostNetwork": false,
        "containers": [{
            "name": "traefik", "imagePullPolicy": "IfNotPresent", "args": args,
            "image": format!("{}:{}", image["repository"].as_str().unwrap_or("traefik"), super::super::text::shown(&image["tag"])),
            "env": [{"name": "POD_NAME", "valueFrom": field("metadata.name")},
                {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")}, {"name": "USER", "value": "traefik"}],
            "ports": ports.map(|(n, p)| json!({"name": n, "containerPort": p, "protocol": "TCP"})),
            "readinessProbe": probe(1), "livenessProbe": probe(3),
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
        }],
        "securityContext": {"runAsGroup": 65532, "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    });
    for k in ["priorityClassName", "tolerations", "nodeSelector", "affinity"] {
        if !v[k].is_null() {
            pod[k] = v[k].clone();
        }
    }
    let notes = json!({"prometheus.io/path": "/metrics", "prometheus.io/port": "9100", "prometheus.io/scrape": "true"});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "traefik", "namespace": w.namespace, "labels": labels},
        "spec": {"replicas": v["deployment"]["replicas"].as_u64().unwrap_or(1), "selector": {"matchLabels": select},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, "minReadySeconds": 0,
            "template": {"metadata": {"annotations": notes, "labels": labels}, "spec": pod}}})
}
