//! Releases of a small chart, with hooks, through their whole life.
use std::path::Path;

use super::{Served, holds};

const CHART: &str = "apiVersion: v2\nname: shop\nversion: 0.1.0\nappVersion: '1'\n";
const VALUES: &str = "replicas: 1\nimage: nginx:1.27\ncolour: blue\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}-web}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec: {containers: [{name: web, image: {{ .Values.image }}}]}
";
const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-settings}\ndata: {colour: {{ .Values.colour }}}\n";
const HOOK: &str = "apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: 'pre-install,pre-upgrade', helm.sh/hook-delete-policy: before-hook-creation}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, 'sleep 5; echo migrated']}]}
";
const TEST: &str = "apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations: {helm.sh/hook: test}
spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, 'echo tested']}]}
";

/// Install, upgrade, history, rollback, test, uninstall.
pub fn releases(lab: &Served, program: &Path, version: &str) {
    let dir = format!("chart{version}");
    for (name, text) in [
        ("Chart.yaml", CHART),
        ("values.yaml", VALUES),
        ("templates/deployment.yaml", DEPLOYMENT),
        ("templates/map.yaml", MAP),
        ("templates/hook.yaml", HOOK),
        ("templates/test.yaml", TEST),
        ("templates/NOTES.txt", "colour is {{ .Values.colour }}\n"),
    ] {
        lab.file(&format!("{dir}/{name}"), text);
    }
    let chart = lab.file(&format!("{dir}/.helmignore"), "").parent().unwrap().display().to_string();
    let helm = lab.client(program);
    let (name, ns) = (format!("shop{version}"), format!("helm{version}"));
    let at = format!("-n {ns}");
    let said = helm.run(&format!("install {name} {chart} {at} --create-namespace --wait --timeout 3m"));
    holds(&said, &["STATUS: deployed", "colour is blue"]);
    holds(
        &helm.run(&format!("upgrade {name} {chart} {at} --set colour=red --set replicas=2 --wait --timeout 3m")),
        &["REVISION: 2", "colour is red"],
    );
    holds(&helm.run(&format!("list {at}")), &[&name, "deployed", "shop-0.1.0"]);
    holds(&helm.run(&format!("get values {name} {at}")), &["colour: red", "replicas: 2"]);
    holds(&helm.run(&format!("get manifest {name} {at}")), &["kind: Deployment", "replicas: 2"]);
    holds(&helm.run(&format!("get hooks {name} {at}")), &["pre-install"]);
    holds(&helm.run(&format!("status {name} {at}")), &["STATUS: deployed"]);
    holds(&helm.run(&format!("history {name} {at}")), &["superseded", "deployed"]);
    holds(&helm.run(&format!("rollback {name} 1 {at} --wait --timeout 3m")), &["Rollback was a success"]);
    holds(&helm.run(&format!("get values {name} {at} --all")), &["colour: blue"]);
    holds(&helm.run(&format!("history {name} {at}")), &["Rollback to 1"]);
    holds(&helm.run(&format!("test {name} {at} --timeout 3m")), &["Succeeded"]);
    holds(&helm.fails(&format!("install {name} {chart} {at}")), &["in use"]);
    holds(&helm.run(&format!("uninstall {name} {at} --wait --timeout 3m")), &["uninstalled"]);
    assert!(!helm.run(&format!("list {at}")).contains(&name));
}
