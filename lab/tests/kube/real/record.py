#!/usr/bin/env python3
"""Records what a real kube-apiserver answers to the requests of a file, for `real.rs` to replay at the lab.

    record.py URL TOKEN FILE...

Each FILE holds one JSON object a line: `do` ("POST /api/v1/namespaces"), and where wanted `type` (the content type of the
body), `body`, `accept`, `agent`, `as` (user to impersonate, needs rights). The answers are written into the same lines: `code`, `warnings`, `answer`.
A row with `setup` is only asked, never compared: what only one of the two has to be told (a namespace's account `default`).
A row with `wait` is asked three seconds later, when the server has read what was written before.
What differs from one run to the next (uids, versions, times, addresses drawn) is `*`. Use an API server without
controllers, with `--service-cluster-ip-range=10.43.0.0/16`, and a fresh one for each recording: nothing is cleaned up.
"""
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request

MASKED = {"uid", "resourceVersion", "creationTimestamp", "time", "deletionTimestamp", "clusterIP", "lastTransitionTime",
          "lastUpdateTime", "lastProbeTime", "nodePort", "healthCheckNodePort", "lastHeartbeatTime", "continue",
          "lastPhaseTransitionTime", "expirationTimestamp", "token", "kubernetes.io/metadata.name"}
# Columns of tables that tell how long ago something was.
AGES = {"Age", "Created At", "Last Schedule", "Last Seen", "First Seen"}
# What is drawn inside of texts.
DRAWN = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?<=kube-api-access-)[a-z0-9]{5}\b"
                   r"|^\w+-apiserver$"
                   r"|(?<=Invalid value: )\"\{\\\"[\s\S]*\}\"(?=: )|(?<=in record \()\d+(?=\))|(?<=ResourceVersion in object meta: )\d+"
                   r"|(?<=\d:)3[0-2]\d{3}(?=/(TCP|UDP))|(?<=\bA_)[a-z0-9]{5}\b|^10\.43\.\d+\.\d+$|(?<=\()\w+(?= ago\))")
TYPES = {"PATCH": "application/merge-patch+json", "POST": "application/json", "PUT": "application/json",
         "DELETE": "application/json", "OPTIONS": "", "HEAD": ""}


def aged(table):
    """A table without ages, and without what is said of its columns (texts of the API's description)."""
    columns = table["columnDefinitions"]
    ages = {i for i, c in enumerate(columns) if c["name"] in AGES}
    rows = [r | {"cells": ["*" if i in ages else c for i, c in enumerate(r["cells"])]} for r in table.get("rows") or []]
    return table | {"columnDefinitions": [c | {"description": "*"} for c in columns], "rows": rows}


def masked(v, key=""):
    if key == "sources" and isinstance(v, list) and v and v[0].get("serviceAccountToken", {}).get("expirationSeconds") == 3607:
        v = v[:3]  # of the token's volume, what every build has
    if isinstance(v, dict) and v.get("columnDefinitions"):
        v = aged(v)
    if isinstance(v, dict):
        made = v.get("generateName") if isinstance(v.get("name"), str) and v["name"] else None
        return {k: masked(x, k) for k, x in v.items() if k not in ("fieldsV1", "name" if made else "")} | (
            {"fieldsV1": v["fieldsV1"]} if "fieldsV1" in v else {}) | ({"name": made + "*"} if made else {})
    if isinstance(v, list):
        return ["*"] * len(v) if key == "clusterIPs" else [masked(x, key) for x in v]
    drawn = isinstance(v, (str, int)) and not isinstance(v, bool) and key in MASKED and v not in ("None", "", 0)
    if drawn:
        return "*"
    return DRAWN.sub("*", v).replace("k8s.io/kubernetes/pkg/api/", "pkg/api/") if isinstance(v, str) else v


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
            time.sleep(3 if row.get("wait") else 0)
            code, warnings, text = ask(url, token, row)
            for f in ("code", "warnings", "answer"):
                row.pop(f, None)
            if not row.get("setup"):
                row |= {"code": code} | ({"warnings": warnings} if warnings else {}) | {"answer": answer(text)}
            out.append(json.dumps(row, separators=(",", ":"), ensure_ascii=False))
        with open(name, "w") as f:
            f.write("\n".join(out) + "\n")
        print(name, len(out))


main()
