//! More of what people do with kubectl: stateful sets, kustomizations, editing, debugging, metrics, default roles.
use super::{Tool, holds};

type Part = fn(&Tool<'_>);

/// All parts by name.
pub const PARTS: &[(&str, Part)] = &[
    ("stateful sets", stateful),
    ("editing", editing),
    ("debugging", debugging),
    ("default roles", roles),
    ("policies", policies),
    ("ends of containers", ends),
];

fn fresh(k: &Tool<'_>, ns: &str) {
    k.try_run(&format!("delete namespace {ns} --ignore-not-found --timeout=120s"));
    k.run(&format!("create namespace {ns}"));
}

const DB: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - {name: c, image: 'postgres:16', ports: [{containerPort: 5432}], volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

fn stateful(k: &Tool<'_>) {
    fresh(k, "state");
    let dir = k.lab.file("kustom/db.yaml", DB).parent().unwrap().display().to_string();
    let text =
        "namespace: state\nnamePrefix: my-\nresources: [db.yaml]\nconfigMapGenerator: [{name: gen, literals: [a=b]}]\n";
    k.lab.file("kustom/kustomization.yaml", text);
    holds(&k.run(&format!("apply -k {dir}")), &["configmap/my-gen-", "statefulset.apps/my-db created"]);
    // the server writes kind, mode and status into templates of claims, so the list is another one each time
    holds(&k.run(&format!("apply -k {dir}")), &["configmap/my-gen-", "unchanged", "statefulset.apps/my-db configured"]);
    k.run("rollout status statefulset/my-db -n state --timeout=300s");
    holds(&k.run("get pvc -n state"), &["data-my-db-0", "data-my-db-1", "Bound"]);
    holds(&k.run("get statefulset -n state"), &["my-db", "2/2"]);
    k.run("rollout restart statefulset/my-db -n state");
    k.run("rollout status statefulset/my-db -n state --timeout=300s");
    holds(&k.run("get controllerrevisions -n state"), &["my-db-", "statefulset.apps/my-db"]);
    k.run("scale statefulset/my-db -n state --replicas=1");
    k.run("wait pod/my-db-1 -n state --for=delete --timeout=120s");
    holds(&k.run("get pvc -n state -o name"), &["data-my-db-1"]);
    k.run("delete namespace state --timeout=300s");
}

fn editing(k: &Tool<'_>) {
    fresh(k, "edit");
    k.run("create deployment web -n edit --image=nginx:1.27");
    let edit = ["edit", "deployment", "web", "-n", "edit"];
    holds(&k.with_variable(("KUBE_EDITOR", "sed -i s/nginx:1.27/nginx:1.28/"), &edit), &["edited"]);
    holds(
        &k.run(
            "get deployment web -n edit -o custom-columns=N:.metadata.name,I:.spec.template.spec.containers[0].image",
        ),
        &["web", "nginx:1.28"],
    );
    holds(&k.run("set env deployment/web -n edit A=b"), &["env updated"]);
    holds(
        &k.run("set resources deployment/web -n edit --limits=cpu=200m,memory=64Mi"),
        &["resource requirements updated"],
    );
    k.run("rollout status deployment/web -n edit --timeout=300s");
    holds(&k.run("rollout history deployment/web -n edit --revision=3"), &["A:", "b"]);
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1'}\n";
    k.with("create -n edit -f -", map);
    holds(&k.with("replace -n edit -f -", &map.replace("'1'", "'2'")), &["configmap/c replaced"]);
    holds(&k.with("replace --force -n edit -f -", map), &["configmap/c replaced"]);
    holds(&k.run("get cm -n edit"), &["kube-root-ca.crt", "c "]);
    holds(&k.fails("wait pod/nope -n edit --for=condition=Ready --timeout=1s"), &["NotFound"]);
    // A pod's containers do not change, but for their images.
    k.run("run p -n edit --image=busybox --restart=Never -- sleep infinity");
    let why = k.fails("patch pod p -n edit -p {\"spec\":{\"containers\":[{\"name\":\"p\",\"env\":[{\"name\":\"A\",\"value\":\"b\"}]}]}}");
    holds(&why, &["Forbidden: pod updates may not change fields other than"]);
    holds(&k.run("set image pod/p -n edit p=busybox:1.37"), &["image updated"]);
    k.run("delete namespace edit --timeout=300s");
}

fn debugging(k: &Tool<'_>) {
    fresh(k, "debug");
    k.run("run web -n debug --image=nginx:1.27");
    k.run("wait pod/web -n debug --for=condition=Ready --timeout=300s");
    let said = k.feed(
        &[
            "debug",
            "web",
            "-n",
            "debug",
            "-c",
            "look",
            "--image=busybox",
            "--attach=false",
            "--",
            "sh",
            "-c",
            "echo looked",
        ],
        "",
    );
    assert_eq!(said.code, 0, "{said:?}");
    k.run("wait pod/web -n debug --for=jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0 --timeout=120s");
    holds(&k.run("logs web -n debug -c look"), &["looked"]);
    holds(&k.run("describe pod web -n debug"), &["Ephemeral Containers:", "look:"]);
    k.feed(
        &["debug", "web", "-n", "debug", "-c", "stay", "--image=busybox", "--attach=false", "--", "sleep", "infinity"],
        "",
    );
    k.run("wait pod/web -n debug --for=jsonpath={.status.ephemeralContainerStatuses[1].name}=stay --timeout=120s");
    holds(&k.run("exec web -n debug -c stay -- hostname"), &["web"]);
    holds(&k.run("top nodes"), &["NAME", "CPU", "k3s-cp1"]);
    holds(&k.run("top pods -n debug"), &["web", "m", "Mi"]);
    holds(&k.run("top pods -A"), &["kube-system", "coredns-"]);
    holds(&k.run("get apiservices v1beta1.metrics.k8s.io"), &["kube-system/metrics-server", "True"]);
    holds(&k.run("events -n debug --for=pod/web"), &["Scheduled", "Pulled"]);
    k.run("delete namespace debug --timeout=300s");
}

fn roles(k: &Tool<'_>) {
    fresh(k, "roles");
    for role in ["view", "edit", "admin"] {
        k.run(&format!("create serviceaccount {role} -n roles"));
        k.run(&format!("create rolebinding {role} -n roles --clusterrole={role} --serviceaccount=roles:{role}"));
    }
    let may = |who: &str, what: &str| {
        k.try_run(&format!("auth can-i {what} -n roles --as=system:serviceaccount:roles:{who}")).code == 0
    };
    for (who, what, want) in [
        ("view", "list pods", true),
        ("view", "get pods --subresource=log", true),
        ("view", "get secrets", false),
        ("view", "delete deployments.apps", false),
        ("edit", "create deployments.apps", true),
        ("edit", "get secrets", true),
        ("edit", "create roles.rbac.authorization.k8s.io", false),
        ("admin", "create rolebindings.rbac.authorization.k8s.io", true),
        ("view", "get /version", true),
        ("view", "get /metrics", false),
    ] {
        assert_eq!(may(who, what), want, "{who}: {what}");
    }
    holds(
        &k.run("auth can-i --list -n roles --as=system:serviceaccount:roles:view"),
        &["selfsubjectaccessreviews", "/version", "pods"],
    );
    k.run("delete namespace roles --timeout=300s");
}

const POLICY: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: few-replicas}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  validations:
  - expression: object.spec.replicas <= 2
    messageExpression: \"'at most 2 replicas, not ' + string(object.spec.replicas)\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: few-replicas}
spec:
  policyName: few-replicas
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policies}}}
";

const TOKEN: &str = "apiVersion: v1
kind: Secret
metadata: {name: robot, namespace: policies, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
";

/// Policies refuse, roles gather, Secrets get the token of an account, columns of lists are JSON.
fn policies(k: &Tool<'_>) {
    fresh(k, "policies");
    let file = k.lab.file("policy.yaml", POLICY).display().to_string();
    holds(
        &k.run(&format!("apply -f {file}")),
        &["validatingadmissionpolicy.admissionregistration.k8s.io/few-replicas created"],
    );
    holds(&k.run("get validatingadmissionpolicies"), &["few-replicas"]);
    let said = k.fails("create deployment many -n policies --image=nginx:1.27 --replicas=3");
    holds(
        &said,
        &[
            "ValidatingAdmissionPolicy 'few-replicas' with binding 'few-replicas' denied request: at most 2 replicas, not 3",
        ],
    );
    k.run("create deployment few -n policies --image=nginx:1.27 --replicas=2");
    holds(&k.fails("patch deployment few -n policies -p {\"spec\":{\"replicas\":4}}"), &["at most 2 replicas, not 4"]);
    k.run("create serviceaccount robot -n policies");
    let file = k.lab.file("token.yaml", TOKEN).display().to_string();
    k.run(&format!("apply -f {file}"));
    holds(&k.run("describe secret robot -n policies"), &["kubernetes.io/service-account-token", "ca.crt:", "token:"]);
    k.run("create clusterrole gather-all --aggregation-rule=part=yes");
    k.run("create clusterrole one-part --verb=get --resource=pods");
    k.run("label clusterrole one-part part=yes");
    holds(&k.run("describe clusterrole gather-all"), &["pods", "[get]"]);
    k.run(&format!("delete -f {}", k.lab.file("policy.yaml", POLICY).display()));
    k.run("delete clusterrole gather-all one-part");
    k.run("delete namespace policies --timeout=300s");
}

const ENDS: &str = "apiVersion: v1
kind: Pod
metadata: {name: small}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: 'busybox:1.36', command: [sleep, infinity], resources: {limits: {memory: 20Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: slip}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: 'busybox:1.36', command: [/bin/nosuch]}
";

fn ends(k: &Tool<'_>) {
    fresh(k, "ends");
    let file = k.lab.file("ends.yaml", ENDS).display().to_string();
    k.run(&format!("apply -n ends -f {file}"));
    k.run("wait pod/small -n ends --for=condition=Ready --timeout=120s");
    let said = k.try_run("exec -n ends small -- tail /dev/zero");
    holds(&said.err, &["command terminated with exit code 137"]);
    k.run("wait pod/small -n ends --for=jsonpath={.status.containerStatuses[0].restartCount}=1 --timeout=120s");
    holds(&k.run("describe pod small -n ends"), &["OOMKilled", "Exit Code:    137"]);
    k.run("wait pod/slip -n ends --for=jsonpath={.status.phase}=Failed --timeout=120s");
    holds(&k.run("get pod slip -n ends"), &["0/1", "StartError"]);
    let told = k.run("describe pod slip -n ends");
    let at = |word: &str| told.find(&format!("Normal   {word} ")).unwrap_or_else(|| panic!("{word}: {told}"));
    assert!(at("Scheduled") < at("Pulled") && at("Pulled") < at("Created"), "{told}");
    k.run("delete namespace ends --timeout=300s");
}
