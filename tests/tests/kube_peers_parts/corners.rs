//! Corners of kubectl: other output forms, groups that are seldom asked for, refusals in the server's words.
use super::{Tool, holds};

type Part = fn(&Tool<'_>);

/// All parts by name.
pub const PARTS: &[(&str, Part)] = &[("seldom groups", groups), ("output forms", forms), ("refusals", refusals)];

fn fresh(k: &Tool<'_>, ns: &str) {
    k.try_run(&format!("delete namespace {ns} --ignore-not-found --timeout=120s"));
    k.run(&format!("create namespace {ns}"));
}

fn groups(k: &Tool<'_>) {
    holds(&k.run("get flowschemas"), &["PRIORITYLEVEL", "exempt", "system-leader-election", "False"]);
    holds(&k.run("get prioritylevelconfigurations"), &["NOMINALCONCURRENCYSHARES", "workload-low", "Limited", "128"]);
    holds(&k.run("describe flowschema service-accounts"), &["workload-low", "system:serviceaccounts"]);
    holds(&k.run("get csinodes"), &["DRIVERS", "k3s-cp1"]);
    let said = k.try_run("get componentstatuses");
    holds(&said.out, &["controller-manager", "Healthy", "ok"]);
    holds(&said.err, &["Warning: v1 ComponentStatus is deprecated in v1.19+"]);
    holds(&k.try_run("get endpoints -n default").err, &["Warning: v1 Endpoints is deprecated in v1.33+"]);
    holds(&k.run("get events.events.k8s.io -A"), &["REASON", "OBJECT"]);
    holds(&k.run("explain events.regarding --api-version=events.k8s.io/v1"), &["FIELD: regarding"]);
    holds(&k.run("api-resources --api-group=events.k8s.io -o wide"), &["events", "ev", "events.k8s.io/v1", "watch"]);
    holds(&k.run("api-versions"), &["events.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1"]);
    holds(&k.run("get --raw /livez/ping"), &["ok"]);
    holds(&k.run("get --raw /version"), &["gitVersion"]);
    holds(&k.run("get --raw /openid/v1/jwks"), &["keys"]);
    holds(&k.run("get --raw /api/v1/nodes/k3s-cp1/proxy/healthz"), &["ok"]);
    holds(&k.run("auth whoami -o jsonpath={.metadata.creationTimestamp}"), &["Z"]);
}

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'nginx:1.27'}]}
";

fn forms(k: &Tool<'_>) {
    fresh(k, "forms");
    k.with("apply -n forms -f -", WEB);
    k.run("rollout status deployment/web -n forms --timeout=300s");
    holds(&k.run("get events.v1.events.k8s.io -n forms -o jsonpath={.items[0].regarding.namespace}"), &["forms"]);
    holds(&k.run("get deployment web -n forms -o wide"), &["CONTAINERS", "IMAGES", "nginx:1.27", "app=web"]);
    holds(&k.run("get deployment web -n forms -o go-template={{.spec.replicas}}"), &["1"]);
    holds(&k.run("get pods -n forms --sort-by=.metadata.name -l app -o name"), &["pod/web-"]);
    holds(&k.run("get pods -n forms -l app=web,tier!=x --show-labels"), &["app=web", "pod-template-hash="]);
    holds(&k.run("get pods -n forms -l app=web,!tier --no-headers"), &["web-", "1/1"]);
    holds(&k.run("get deployment web -n forms --subresource=status -o jsonpath={.status.readyReplicas}"), &["1"]);
    holds(&k.run("get deployment web -n forms --subresource=scale -o jsonpath={.spec.replicas}"), &["1"]);
    holds(&k.run("rollout history deployment/web -n forms --revision=1"), &["pod-template-hash", "nginx:1.27"]);
    holds(&k.run("annotate deployment web -n forms kubernetes.io/change-cause=first"), &["annotated"]);
    k.run("wait deployment/web -n forms --for=jsonpath={.status.observedGeneration} --timeout=60s");
    holds(&k.run("label deployment web -n forms app=other --overwrite"), &["labeled"]);
    holds(&k.run("get deployment web -n forms -o jsonpath={.metadata.labels.app}"), &["other"]);
    holds(&k.run("apply view-last-applied deployment/web -n forms"), &["nginx:1.27"]);
    holds(&k.run("delete pods -n forms -l app=web --wait=false"), &["deleted"]);
    k.run("rollout status deployment/web -n forms --timeout=300s");
    holds(&k.run("create job once -n forms --image=busybox -- true"), &["created"]);
    holds(&k.run("delete job once -n forms --cascade=foreground"), &["deleted"]);
    holds(&k.run("delete deployment web -n forms --cascade=foreground"), &["deleted"]);
    k.run("delete namespace forms --timeout=300s");
}

fn refusals(k: &Tool<'_>) {
    fresh(k, "no");
    let refused = |text: &str, why: &[&str]| {
        let said = k.feed(&["create", "-n", "no", "-f", "-"], text);
        assert_ne!(said.code, 0, "{text}");
        holds(&said.err, why);
    };
    refused(
        &WEB.replace("replicas: 1", "replicas: -1"),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    refused(
        &WEB.replace("{app: web}}\n  template", "{app: other}}\n  template"),
        &["`selector` does not match template `labels`"],
    );
    refused(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 192.168.7.7, ports: [{port: 80}]}\n",
        &["failed to allocate IP 192.168.7.7: the provided network does not match the current range"],
    );
    refused(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec: {}\n",
        &["either `defaultBackend` or `rules` must be specified"],
    );
    holds(&k.fails("create configmap Bad_Name -n no"), &["a lowercase RFC 1123 subdomain must consist of"]);
    holds(&k.fails("get pods -n no --field-selector spec.colour=x"), &["field label not supported: spec.colour"]);
    holds(&k.fails("delete namespace kube-system"), &["this namespace may not be deleted"]);
    holds(
        &k.fails("create priorityclass too-much --value=2000000000"),
        &["maximum allowed value of a user defined priority is 1000000000"],
    );
    k.run("delete namespace no --timeout=300s");
}
