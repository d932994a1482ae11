#!/usr/bin/env python3
"""Records what a real kube-apiserver answers to the requests of a file, for `real.rs` to replay at the lab.

    record.py URL TOKEN FILE...

Each FILE holds one JSON object a line: `do` ("POST /api/v1/namespaces"), and where wanted `type` (the content type of the
body), `body`, `accept`, `agent`, `as` (user to impersonate, needs rights). The answers are written into the same lines: `code`, `warnings`, `answer`.
What differs from one run to the next (uids, versions, times, addresses drawn) is `*`. Use an API server without
controllers, with `--service-cluster-ip-range=10.43.0.0/16`, and a fresh one for each recording: nothing is cleaned up.
"""
import json
import re
import ssl
import sys
import urllib.error
import urllib.request

MASKED = {"uid", "resourceVersion", "creationTimestamp", "time", "deletionTimestamp", "clusterIP", "lastTransitionTime",
          "lastUpdateTime", "lastProbeTime", "nodePort", "healthCheckNodePort", "lastHeartbeatTime"}
TYPES = {"PATCH": "application/merge-patch+json", "POST": "application/json", "PUT": "application/json",
         "DELETE": "application/json"}


def masked(v, key=""):
    if isinstance(v, dict):
        return {k: masked(x, k) for k, x in v.items() if k != "fieldsV1"} | (
            {"fieldsV1": v["fieldsV1"]} if "fieldsV1" in v else {})
    if isinstance(v, list):
        return ["*"] * len(v) if key == "clusterIPs" else [masked(x, key) for x in v]
    drawn = isinstance(v, (str, int)) and not isinstance(v, bool) and key in MASKED and v not in ("None", "", 0)
    if drawn:
        return "*"
    return re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "*", v) if isinstance(v, str) else v


def ask(url, token, row):
    method, path = row["do"].split(" ", 1)
    body = row.get("body")
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {"Authorization": f"Bearer {token}", "Accept": row.get("accept", "application/json"),
               "User-Agent": row.get("agent", "python-urllib3/2.5.0")}
    if "as" in row:
        headers["Impersonate-User"] = row["as"]
    if data is not None:
        headers["Content-Type"] = row.get("type", TYPES[method])
    request = urllib.request.Request(url + path, data=data, method=method, headers=headers)
    trust = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, context=trust, timeout=60) as r:
            return r.status, r.headers.get_all("Warning") or [], r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get_all("Warning") or [], e.read().decode()


def answer(text):
    """One JSON document, a list of them (a watch), or text."""
    for read in (json.loads, lambda t: [json.loads(line) for line in t.splitlines()]):
        try:
            return masked(read(text))
        except ValueError:
            pass
    return text


def main():
    url, token, files = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3:]
    for name in files:
        out = []
        for line in open(name):
            if not line.strip():
                continue
            row = json.loads(line)
            row["code"], warnings, text = ask(url, token, row)
            row.pop("warnings", None)
            if warnings:
                row["warnings"] = warnings
            row["answer"] = answer(text)
            out.append(json.dumps(row, separators=(",", ":"), ensure_ascii=False))
        with open(name, "w") as f:
            f.write("\n".join(out) + "\n")
        print(name, len(out))


main()
