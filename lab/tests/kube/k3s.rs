//! What K3s makes beside Kubernetes: manifests with their addons, load balancers, jobs of HelmCharts.
use gpuhost_lab::kube::bare;
use gpuhost_lab::kube::cx::with_cluster;
use gpuhost_lab::kube::k3s::packaged;
use gpuhost_lab::kube::store::standards::Standards;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::controllers::until;

/// A cluster of one server, whose K3s has applied its manifests.
async fn server(config: Value) -> Bed {
    let bed = Bed::running().await;
    bed.lab.with(|w| {
        with_cluster(&bed.lab, w, &bed.cluster, |cx| {
            cx.c.config = config.clone();
            packaged::birth(cx);
        });
    });
    for (name, ip) in [("n1", "10.0.0.11"), ("n2", "10.0.0.12")] {
        bare::node(&bed.lab, &bed.cluster, name);
        let told = json!({"status": {"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]}});
        let a = bed.patch("merge", &format!("/api/v1/nodes/{name}/status"), told).await;
        assert_eq!(a.code, 200, "{}", a.text);
    }
    bed.lab.with(|w| with_cluster(&bed.lab, w, &bed.cluster, |cx| packaged::server_started(cx, 9, &config)));
    bed
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_of_a_server() {
    let bed = server(json!({"disable": ["traefik"]})).await;
    let addons = bed.get("/apis/k3s.cattle.io/v1/namespaces/kube-system/addons").await.body;
    let wanted = "aggregated-metrics-reader auth-delegator auth-reader ccm coredns local-storage metrics-apiservice \
                  metrics-server-deployment metrics-server-service resource-reader rolebindings runtimes";
    assert_eq!(names(&addons).join(" "), wanted);
    let coredns = bed.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns").await.body;
    let meta = &coredns["metadata"];
    assert_eq!(meta["labels"]["objectset.rio.cattle.io/hash"], "bce283298811743a0386ab510f2f67ef74240c57");
    assert_eq!(meta["annotations"]["objectset.rio.cattle.io/owner-name"], "coredns");
    let image = &coredns["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "rancher/mirrored-coredns-coredns:1.14.4");
    let map = bed.get("/api/v1/namespaces/kube-system/configmaps/coredns").await.body;
    assert_eq!(map["data"]["NodeHosts"], "10.0.0.11 n1\n10.0.0.12 n2\n");
    let classes = bed.get("/apis/node.k8s.io/v1/runtimeclasses").await.body;
    assert!(names(&classes).contains(&"nvidia") && !names(&classes).contains(&"nvidia-cdi"), "{:?}", names(&classes));
    let events = bed.get("/api/v1/namespaces/kube-system/events?fieldSelector=involvedObject.kind=Addon").await.body;
    let said: Vec<&str> = events["items"].as_array().unwrap().iter().map(|e| e["message"].as_str().unwrap()).collect();
    assert!(said.contains(&"Applied manifest at \"/var/lib/rancher/k3s/server/manifests/coredns.yaml\""), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_has_the_addresses_of_the_nodes() {
    let bed = server(json!({})).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
        "ports": [{"port": 8080, "targetPort": 80}]}});
    let made = bed.post("/api/v1/namespaces/default/services", service).await.body;
    let set = format!("svclb-web-{}", &made["metadata"]["uid"].as_str().unwrap()[..8]);
    let sets = "/apis/apps/v1/namespaces/kube-system/daemonsets";
    let of = until(&bed, &format!("{sets}/{set}"), "made", |o| o["kind"] == "DaemonSet").await;
    let container = &of["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["name"], &container["ports"][0]["hostPort"]), (&json!("lb-tcp-8080"), &json!(8080)));
    assert_eq!(container["image"], "rancher/klipper-lb:v0.4.17");
    assert_eq!(of["metadata"]["annotations"]["objectset.rio.cattle.io/owner-gvk"], "/v1, Kind=Service");
    let web = "/api/v1/namespaces/default/services/web";
    let ips = json!([{"ip": "10.0.0.11", "ipMode": "VIP"}, {"ip": "10.0.0.12", "ipMode": "VIP"}]);
    until(&bed, web, "both nodes", |o| o["status"]["loadBalancer"]["ingress"] == ips).await;
    // a labelled node is the only one from then on
    let label = json!({"metadata": {"labels": {"svccontroller.k3s.cattle.io/enablelb": "true"}}});
    assert_eq!(bed.patch("merge", "/api/v1/nodes/n2", label).await.code, 200);
    let ips = json!([{"ip": "10.0.0.12", "ipMode": "VIP"}]);
    until(&bed, web, "the labelled node", |o| o["status"]["loadBalancer"]["ingress"] == ips).await;
    bed.delete(web, Value::Null).await;
    for path in [web, &format!("{sets}/{set}")] {
        until(&bed, path, "gone", |o| o["code"] == 404).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_a_chart() {
    let bed = server(json!({"disable": ["traefik"]})).await;
    let chart = json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": "cm"},
        "spec": {"repo": "https://charts.jetstack.io", "chart": "cert-manager", "version": "1.20.2",
            "targetNamespace": "certs", "createNamespace": true, "valuesContent": "a: 1", "set": {"b": "x,y"}}});
    let at = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts";
    assert_eq!(bed.post(at, chart).await.code, 201);
    let job = "/apis/batch/v1/namespaces/kube-system/jobs/helm-install-cm";
    let job = until(&bed, job, "made", |o| o["kind"] == "Job").await;
    let pod = &job["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let args =
        ["install", "--namespace", "certs", "--create-namespace", "--version", "1.20.2", "--set-string", "b=x\\,y"];
    assert_eq!(container["args"], json!(args));
    let env =
        |name: &str| container["env"].as_array().unwrap().iter().find(|e| e["name"] == name).unwrap()["value"].clone();
    assert_eq!((env("CHART"), env("TARGET_NAMESPACE")), (json!("cm/cert-manager"), json!("certs")));
    assert_eq!((env("FAILURE_POLICY"), env("REPO")), (json!("reinstall"), json!("https://charts.jetstack.io")));
    assert_eq!(pod["volumes"][4]["projected"]["sources"][0]["secret"]["name"], "chart-values-cm");
    assert_eq!(job["metadata"]["ownerReferences"][0]["controller"], false);
    assert_eq!(
        bed.get("/api/v1/namespaces/kube-system/secrets/chart-values-cm").await.body["data"]["HelmChartValuesContent"],
        "YTogMQ=="
    );
    let live = bed.get(&format!("{at}/cm")).await.body;
    assert_eq!(live["metadata"]["annotations"]["helmcharts.cattle.io/managed-by"], "helm-controller");
    assert_eq!(live["status"]["conditions"][1], json!({"type": "Failed", "status": "False"}));
    let there = |o: &Value| o["kind"] == "Deployment";
    until(&bed, "/apis/apps/v1/namespaces/certs/deployments/cert-manager", "installed", there).await;
    bed.delete(&format!("{at}/cm"), Value::Null).await;
    until(&bed, &format!("{at}/cm"), "gone", |o| o["code"] == 404).await;
    for job in ["helm-install-cm", "helm-delete-cm"] {
        let path = format!("/apis/batch/v1/namespaces/kube-system/jobs/{job}");
        until(&bed, &path, "gone with its chart", |o| o["code"] == 404).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_that_changes_what_cannot_change_fails() {
    let bed = server(json!({"disable": ["traefik"]})).await;
    let chart = |class: &str| {
        json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": "hub"},
            "spec": {"chart": "jupyterhub", "repo": "https://hub.jupyter.org/helm-chart", "version": "4.3.1", "targetNamespace": "hub",
                "createNamespace": true, "valuesContent": format!("hub:\n  db:\n    pvc:\n      storageClassName: {class}\n")}})
    };
    let at = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts";
    let a = bed.post(at, chart("local-path")).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let claim = "/api/v1/namespaces/hub/persistentvolumeclaims/hub-db-dir";
    let bound = until(&bed, claim, "bound", |o| o["status"]["phase"] == "Bound").await;
    let job = "/apis/batch/v1/namespaces/kube-system/jobs/helm-install-hub";
    let first = bed.get(job).await.body["metadata"]["uid"].clone();
    let values = chart("other")["spec"]["valuesContent"].clone();
    bed.patch("merge", &format!("{at}/hub"), json!({"spec": {"valuesContent": values}})).await;
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=job-name%3Dhelm-install-hub";
    let failed = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1);
    let list = until(&bed, pods, "failed once", |l| l["items"].as_array().is_some_and(|i| i.iter().any(failed))).await;
    assert_ne!(bed.get(job).await.body["metadata"]["uid"], first, "a job of its own for the change");
    assert_eq!(bed.get(claim).await.body["spec"], bound["spec"], "the claim is as it was");
    let name = list["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let log = bed.get(&format!("/api/v1/namespaces/kube-system/pods/{name}/log?previous=true")).await.text;
    let want = "Error: UPGRADE FAILED: cannot patch \"hub-db-dir\" with kind PersistentVolumeClaim: PersistentVolumeClaim \"hub-db-dir\" is invalid: spec: Forbidden: spec is immutable after creation";
    assert!(log.contains(want), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_gets_its_certificate_from_an_issuer_of_the_cluster() {
    let bed = server(json!({"disable": ["traefik"]})).await;
    let chart = json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": "cm"},
        "spec": {"repo": "https://charts.jetstack.io", "chart": "cert-manager", "version": "1.20.2",
            "targetNamespace": "certs", "createNamespace": true, "valuesContent": "crds:\n  enabled: true\n"}});
    let a = bed.post("/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts", chart).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let deployment = "/apis/apps/v1/namespaces/certs/deployments/cert-manager";
    until(&bed, deployment, "available", |o| o["status"]["availableReplicas"].as_u64() >= Some(1)).await;
    let issuer = json!({"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "own"},
        "spec": {"selfSigned": {}}});
    let a = bed.post("/apis/cert-manager.io/v1/clusterissuers", issuer).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let ingress = json!({"metadata": {"name": "web", "annotations": {"cert-manager.io/cluster-issuer": "own"}},
        "spec": {"tls": [{"hosts": ["web.lab.example"], "secretName": "web-tls"}],
            "rules": [{"host": "web.lab.example"}]}});
    let a = bed.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let secret = until(&bed, "/api/v1/namespaces/default/secrets/web-tls", "made", |o| o["kind"] == "Secret").await;
    let notes = &secret["metadata"]["annotations"];
    assert_eq!(
        (&notes["cert-manager.io/issuer-kind"], &notes["cert-manager.io/issuer-name"]),
        (&json!("ClusterIssuer"), &json!("own"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_writes_its_addresses_on_the_ingresses_it_serves() {
    let bed = server(json!({})).await;
    let base = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let ingress = |name: &str, class: Option<&str>| {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        let mut spec = json!({"rules": [{"host": format!("{name}.example"), "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": service}]}}]});
        if let Some(class) = class {
            spec["ingressClassName"] = json!(class);
        }
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let other = json!({"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}});
    assert_eq!(bed.post("/apis/networking.k8s.io/v1/ingressclasses", other).await.code, 201);
    for (name, class) in [("mine", Some("traefik")), ("plain", None), ("foreign", Some("other"))] {
        assert_eq!(bed.post(base, ingress(name, class)).await.code, 201);
    }
    let ips = json!([{"ip": "10.0.0.11"}, {"ip": "10.0.0.12"}]);
    for name in ["mine", "plain"] {
        let at = format!("{base}/{name}");
        let of = until(&bed, &at, "addresses", |o| o["status"]["loadBalancer"]["ingress"] == ips).await;
        let fields = of["metadata"]["managedFields"].as_array().unwrap();
        assert!(fields.iter().any(|f| f["manager"] == "traefik" && f["subresource"] == "status"), "{fields:?}");
    }
    let of = bed.get(&format!("{base}/foreign")).await.body;
    assert_eq!(of["status"], json!({"loadBalancer": {}}));
    // a node that is not to balance any more goes from the Ingresses, too
    let label = json!({"metadata": {"labels": {"svccontroller.k3s.cattle.io/enablelb": "true"}}});
    assert_eq!(bed.patch("merge", "/api/v1/nodes/n2", label).await.code, 200);
    let ips = json!([{"ip": "10.0.0.12"}]);
    until(&bed, &format!("{base}/mine"), "one node", |o| o["status"]["loadBalancer"]["ingress"] == ips).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_admission_configuration_holds_where_no_label_is() {
    let bed = Bed::still().await;
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": {
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "warn": "restricted"},
            "exemptions": {"namespaces": ["kube-system"]}}}]});
    let standards = Standards::read(&file.to_string()).unwrap();
    bed.lab.with(|w| with_cluster(&bed.lab, w, &bed.cluster, |cx| cx.c.store.standards = standards));
    let open = json!({"metadata": {"name": "open", "labels": {"pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/warn": "privileged"}}});
    assert_eq!(bed.post("/api/v1/namespaces", open).await.code, 201);
    let pod = |network: bool| {
        json!({"metadata": {"name": format!("p-{network}")},
            "spec": {"hostNetwork": network, "containers": [{"name": "c", "image": "i"}]}})
    };
    for (ns, network, code) in
        [("default", true, 403), ("default", false, 201), ("kube-system", true, 201), ("open", true, 201)]
    {
        let a = bed.post(&format!("/api/v1/namespaces/{ns}/pods?dryRun=All"), pod(network)).await;
        assert_eq!(a.code, code, "{ns} {network}: {}", a.text);
        assert_eq!(a.text.contains("violates PodSecurity \\\"baseline:latest\\\": host namespaces"), code == 403);
    }
}
