//! The Python client: typed and dynamic, patches, watches that resume, streams.
use std::path::Path;

use super::Served;

const SCRIPT: &str = r#"
import json, sys, threading, time
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
ns = "py"
try:
    core.delete_namespace(ns)
    while True:
        core.read_namespace(ns); time.sleep(0.2)
except ApiException as e:
    assert e.status == 404, e
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=ns)))
assert any(n.status.conditions for n in core.list_node().items)
cm = core.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"), data={"k": "1"}))
assert cm.metadata.uid and cm.metadata.creation_timestamp
core.patch_namespaced_config_map("a", ns, {"data": {"k": "2"}})
try:
    cm.data = {"k": "3"}
    core.replace_namespaced_config_map("a", ns, cm)
    raise SystemExit("a stale version was accepted")
except ApiException as e:
    assert e.status == 409 and json.loads(e.body)["reason"] == "Conflict", e
# pages
for i in range(5):
    core.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="p-", labels={"page": "y"})))
seen, token = [], None
while True:
    r = core.list_namespaced_config_map(ns, label_selector="page=y", limit=2, _continue=token)
    seen += [o.metadata.name for o in r.items]
    token = r.metadata._continue
    if not token: break
assert len(set(seen)) == 5, seen
# a watch that resumes where it ended
rv = core.list_namespaced_config_map(ns).metadata.resource_version
core.patch_namespaced_config_map("a", ns, {"data": {"k": "4"}})
core.delete_namespaced_config_map("a", ns)
w = watch.Watch(); types = []
for e in w.stream(core.list_namespaced_config_map, ns, resource_version=rv, timeout_seconds=5):
    types.append(e["type"])
    if len(types) == 2: w.stop()
assert types == ["MODIFIED", "DELETED"], types
begun = time.time()
assert list(watch.Watch().stream(core.list_namespaced_config_map, ns, field_selector="metadata.name=zz", timeout_seconds=1)) == []
assert time.time() - begun < 60
# workloads
dep = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2,
  "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
  "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]}}}}
apps.create_namespaced_deployment(ns, dep)
for e in watch.Watch().stream(apps.list_namespaced_deployment, ns, timeout_seconds=120):
    if (e["object"].status.available_replicas or 0) == 2: break
else: raise SystemExit("never available")
assert apps.read_namespaced_deployment_scale("web", ns).spec.replicas == 2
pod = core.list_namespaced_pod(ns, label_selector="app=web").items[0].metadata.name
apps.patch_namespaced_deployment_scale("web", ns, {"spec": {"replicas": 3}})
assert core.read_namespaced_pod_log(pod, ns) is not None
out = stream(core.connect_get_namespaced_pod_exec, pod, ns, command=["sh", "-c", "echo $HOSTNAME; echo bad >&2"], stderr=True, stdin=False, stdout=True, tty=False)
assert pod in out and "bad" in out, out
r = stream(core.connect_get_namespaced_pod_exec, pod, ns, command=["sh"], stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False)
r.write_stdin("echo one\n")
got = ""
end = time.time() + 60
while "one" not in got and time.time() < end:
    r.update(timeout=1)
    if r.peek_stdout(): got += r.read_stdout()
r.close()
assert "one" in got, got
# dynamic
dyn = dynamic.DynamicClient(client.ApiClient())
charts = dyn.resources.get(api_version="helm.cattle.io/v1", kind="HelmChart")
assert charts.namespaced
maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
maps.server_side_apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"a": "1"}}, name="ssa", namespace=ns, field_manager="py")
o = maps.get(name="ssa", namespace=ns)
assert o.metadata.managedFields[0].manager == "py" and o.metadata.managedFields[0].operation == "Apply"
try:
    maps.server_side_apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"a": "2"}}, name="ssa", namespace=ns, field_manager="other")
    raise SystemExit("no conflict")
except ApiException as e:
    assert e.status == 409, e
for e in maps.watch(namespace=ns, timeout=5, resource_version=o.metadata.resourceVersion):
    pass
# an informer: list, watch, and list anew when the window has passed
known = {}
def relist():
    r = core.list_namespaced_config_map(ns)
    known.clear(); known.update({o.metadata.name: o for o in r.items})
    return r.metadata.resource_version
begun, restarts = "1", 0
for attempt in range(2):
    try:
        for e in watch.Watch().stream(core.list_namespaced_config_map, ns, resource_version=begun, timeout_seconds=1): pass
    except ApiException as e:
        assert e.status == 410 and "too old resource version" in e.reason, e
        begun, restarts = relist(), restarts + 1
assert restarts == 1 and "ssa" in known, (restarts, list(known))
# patches by their content types
core.patch_namespaced_config_map("ssa", ns, [{"op": "add", "path": "/data/j", "value": "1"}], _content_type="application/json-patch+json")
try:
    core.patch_namespaced_config_map("ssa", ns, [{"op": "test", "path": "/data/j", "value": "2"}], _content_type="application/json-patch+json")
    raise SystemExit("a test that fails was carried out")
except ApiException as e:
    assert e.status == 422 and json.loads(e.body)["reason"] == "Invalid", e
# deletes with options
cm = core.read_namespaced_config_map("ssa", ns)
try:
    core.delete_namespaced_config_map("ssa", ns, body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other")))
    raise SystemExit("another object was deleted")
except ApiException as e:
    assert e.status == 409 and "deleted and then recreated" in json.loads(e.body)["message"], e
core.delete_namespaced_config_map("ssa", ns, dry_run="All")
core.delete_namespaced_config_map("ssa", ns, body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=cm.metadata.uid)))
core.delete_collection_namespaced_config_map(ns, label_selector="page=y", propagation_policy="Background")
assert not core.list_namespaced_config_map(ns, label_selector="page=y").items
# a log that is followed, and eviction
lines = core.read_namespaced_pod_log(pod, ns, follow=True, tail_lines=1, _preload_content=False, _request_timeout=60)
assert next(iter(lines)).strip(); lines.close()
core.create_namespaced_pod_eviction(pod, ns, client.V1Eviction(metadata=client.V1ObjectMeta(name=pod, namespace=ns)))
# leader election over a lease
lease = client.V1Lease(metadata=client.V1ObjectMeta(name="leader"), spec=client.V1LeaseSpec(holder_identity="a", lease_duration_seconds=15))
coord = client.CoordinationV1Api()
mine = coord.create_namespaced_lease(ns, lease)
theirs = coord.read_namespaced_lease("leader", ns)
mine.spec.holder_identity = "a2"; coord.replace_namespaced_lease("leader", ns, mine)
try:
    theirs.spec.holder_identity = "b"; coord.replace_namespaced_lease("leader", ns, theirs)
    raise SystemExit("two leaders")
except ApiException as e:
    assert e.status == 409, e
core.delete_namespace(ns)
print("python: done")
"#;

/// Runs the whole script.
pub fn clients(lab: &Served, program: &Path) {
    let script = lab.file("client.py", SCRIPT).display().to_string();
    let said = lab.client(program).feed(&[&script], "");
    assert!(said.code == 0 && said.out.contains("python: done"), "{}\n{}", said.out, said.err);
}
