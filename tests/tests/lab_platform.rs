//! What Fleet and the GPU operator leave in a deployed lab, as their users look at it: deployments of bundles, their
//! releases, the validator's pods.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_tests::Bench;

const FLEET: &str = r#"
let c = k3s::connect(site().hosts("server"));
let home = #{ namespace: "cluster-fleet-local-local-1a3d67d0a899" };
let name = "homelab-recipes-gitops-namespaces";
let d = c.get("bundledeployments.fleet.cattle.io", name, home);
require(d.metadata.labels["fleet.cattle.io/bundle-name"] == name && d.metadata.labels["fleet.cattle.io/cluster"] == "local", `labels ${d.metadata.labels}`);
require("fleet.cattle.io/bundle-deployment-finalizer" in d.metadata.finalizers, "its finalizer");
require(d.status.appliedDeploymentID == d.spec.deploymentID && d.status.release == `default/${name}:1`, `${d.status}`);
require(d.status.display.state == "Ready" && d.status.ready && d.status.nonModified, `${d.status.display}`);
let release = c.find_release(name, #{ namespace: "default" });
require(type_of(release) != "()", "the bundle is a release");
let quota = c.get("resourcequota", "gpus", #{ namespace: "research" }).metadata;
require(quota.annotations["meta.helm.sh/release-name"] == name && quota.labels["app.kubernetes.io/managed-by"] == "Helm", `${quota}`);
require(quota.annotations["objectset.rio.cattle.io/id"] == "default-" + name, `${quota.annotations}`);
require(c.get("clusters.fleet.cattle.io", "local", #{ namespace: "fleet-local" }).status.display.readyBundles == "1/1", "the cluster counts it");
let table = ssh::connect(site().hosts("server")[0].name).run("k3s kubectl get bundledeployments -A").stdout;
print(`TABLE ${table}`);
"#;

const UPGRADE: &str = r#"
let c = k3s::connect(site().hosts("server"));
let name = "homelab-recipes-gitops-namespaces";
c.ensure_release(name, #{ chart: "cert-manager", repo: "https://charts.jetstack.io", version: "1.20.2", namespace: "default" });
"#;

const VALIDATOR: &str = r#"
let c = k3s::connect(site().hosts("server"));
let of = |app| c.list("pod", #{ namespace: "gpu-operator", labels: #{ app: app } });
for app in ["nvidia-cuda-validator", "nvidia-device-plugin-validator"] {
    let pods = of.call(app);
    require(pods.len() == 4, `${pods.len()} pods of ${app}`);
    for p in pods { require(p.status.phase == "Succeeded", `${p.metadata.name} is ${p.status.phase}`); }
}
let pod = of.call("nvidia-operator-validator")[0];
let steps = pod.spec.initContainers.map(|i| i.name).join(" ");
require(steps == "driver-validation toolkit-validation cuda-validation plugin-validation", steps);
let log = c.logs(of.call("nvidia-cuda-validator")[0].metadata.name, #{ namespace: "gpu-operator" });
print(`LOG ${log}`);
print(`MAIN ${c.logs(pod.metadata.name, #{ namespace: "gpu-operator" })}`);
"#;

#[test]
fn bundles_are_deployments_and_releases_and_the_validator_has_run() {
    let b = Bench::new();
    let site = ["--site", "recipes/site.toml"];
    let _ = b.run(&["lab", "reset", "--start", "deployed", site[0], site[1]]).expect(0);
    let ran = |text: &str| {
        std::fs::write(b.path("look.rhai"), text).unwrap();
        let path = b.path("look.rhai").display().to_string();
        b.run(&["run", &path, "--lab", "--json", "--yes", site[0], site[1]])
    };
    let run = |text: &str| ran(text).expect(0).said("print").join("\n");
    let said = run(FLEET);
    let row = said.lines().find(|l| l.starts_with("cluster-fleet-local-local-1a3d67d0a899")).unwrap_or_default();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[1..4], ["homelab-recipes-gitops-namespaces", "True", "True"], "{said}");
    let head = said.lines().find(|l| l.contains("NAMESPACE")).unwrap_or_default();
    assert!(head.contains("DEPLOYED") && head.contains("MONITORED") && head.contains("STATUS"), "{head}");
    let refused = ran(UPGRADE).expect(4);
    assert!(refused.finished()["error"]["message"].as_str().unwrap().contains("Fleet owns the release"), "{refused:?}");
    let said = run(VALIDATOR);
    assert!(said.contains("LOG cuda workload validation is successful"), "{said}");
    assert!(said.contains("MAIN all validations are successful"), "{said}");
}
