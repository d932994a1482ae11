//! Rules of the volumes of pods. Grade: source (the validation of the core group).
use serde_json::Value;

use super::podcontainer::{field, resource};
use super::podsecurity::{BACKSTEP, descending};
use super::rules::{duplicate, forbidden, one_of};
use super::validate::{judged, selector};
use super::{names, volumes};
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Sources in the order in which they are looked at.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// What sources cannot do without.
const NEEDED: &[(&str, &[&str])] = &[
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("flexVolume", &["driver"]),
    ("vsphereVolume", &["volumePath"]),
    ("csi", &["driver"]),
    ("ephemeral", &["volumeClaimTemplate"]),
    ("image", &["reference"]),
];

/// Checks the volumes of a pod; the names of those that are sound.
pub(super) fn check<'a>(spec: &'a Value, path: &str, out: &mut Vec<Cause>) -> Vec<&'a str> {
    let mut sound = Vec::new();
    for (i, v) in arr(spec, "/volumes").iter().enumerate() {
        let (at, name, before) = (format!("{path}.volumes[{i}]"), s(v, "/name"), out.len());
        sources(v, &at, out);
        match name {
            "" => out.push(Cause::required(format!("{at}.name"), "")),
            name => judged(format!("{at}.name"), name, names::label, out),
        }
        if sound.contains(&name) {
            out.push(duplicate(format!("{at}.name"), &v["name"]));
        }
        if out.len() == before {
            sound.push(name);
        }
    }
    sound
}

fn sources(v: &Value, at: &str, out: &mut Vec<Cause>) {
    let mut there = SOURCES.iter().filter(|f| v[**f].is_object());
    match there.next() {
        Some(first) => source(first, &v[*first], &format!("{at}.{first}"), out),
        None => out.push(Cause::required(at, "must specify a volume type")),
    }
    for more in there {
        out.push(forbidden(&format!("{at}.{more}"), "may not specify more than 1 volume type"));
    }
}

fn lacks(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::String(t) => t.is_empty(),
        Value::Array(a) => a.is_empty(),
        _ => false,
    }
}

fn source(sort: &str, v: &Value, at: &str, out: &mut Vec<Cause>) {
    let needed = NEEDED.iter().find(|(k, _)| *k == sort).map_or(&[][..], |(_, f)| *f);
    for f in needed.iter().filter(|f| lacks(&v[**f])) {
        out.push(Cause::required(format!("{at}.{f}"), ""));
    }
    mode(v, "defaultMode", at, out);
    match sort {
        "emptyDir" if milli(&v["sizeLimit"]) < 0 => {
            let why = "SizeLimit field must be a valid resource quantity";
            out.push(forbidden(&format!("{at}.sizeLimit"), why));
        }
        "hostPath" => {
            let path = s(v, "/path");
            if path.split('/').any(|p| p == "..") {
                out.push(Cause::invalid(format!("{at}.path"), &path.into(), BACKSTEP));
            }
            let kinds =
                ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            one_of(format!("{at}.type"), &v["type"], &kinds, out);
        }
        "secret" | "configMap" => {
            for (i, item) in arr(v, "/items").iter().enumerate() {
                key_to_path(item, &format!("{at}.items[{i}]"), out);
            }
        }
        "nfs" if !s(v, "/path").starts_with('/') => {
            out.push(Cause::invalid(format!("{at}.path"), &s(v, "/path").into(), "must be an absolute path"));
        }
        "downwardAPI" => arr(v, "/items").iter().for_each(|f| file(f, at, out)),
        "fc" => channel(v, at, out),
        "projected" => projected(v, at, out),
        "ephemeral" => claim(&v["volumeClaimTemplate"], &format!("{at}.volumeClaimTemplate"), out),
        "image" => {
            one_of(format!("{at}.pullPolicy"), &v["pullPolicy"], &["Always", "IfNotPresent", "Never"], out);
        }
        _ => {}
    }
}

fn mode(v: &Value, name: &str, at: &str, out: &mut Vec<Cause>) {
    if v[name].as_i64().is_some_and(|n| !(0..=0o777).contains(&n)) {
        out.push(Cause::invalid(format!("{at}.{name}"), &v[name], MODE));
    }
}

/// A path below a volume whose beginning is not its own.
fn local(path: &str, at: &str, out: &mut Vec<Cause>) {
    descending(at, path, out);
    if path.starts_with("..") && !path.starts_with("../") {
        out.push(Cause::invalid(at, &path.into(), "must not start with '..'"));
    }
}

fn key_to_path(item: &Value, at: &str, out: &mut Vec<Cause>) {
    for f in ["key", "path"].into_iter().filter(|f| lacks(&item[*f])) {
        out.push(Cause::required(format!("{at}.{f}"), ""));
    }
    local(s(item, "/path"), &format!("{at}.path"), out);
    mode(item, "mode", at, out);
}

/// A file that tells of the pod.
fn file(f: &Value, at: &str, out: &mut Vec<Cause>) {
    if s(f, "/path").is_empty() {
        out.push(Cause::required(format!("{at}.path"), ""));
    }
    local(s(f, "/path"), &format!("{at}.path"), out);
    if f["fieldRef"].is_object() {
        field(&f["fieldRef"], &format!("{at}.fieldRef"), true, out);
        if f["resourceFieldRef"].is_object() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            out.push(Cause::invalid(at, &"resource".into(), why));
        }
    } else if f["resourceFieldRef"].is_object() {
        resource(&f["resourceFieldRef"], &format!("{at}.resourceFieldRef"), true, out);
    } else {
        out.push(Cause::required(at, "one of fieldRef and resourceFieldRef is required"));
    }
    mode(f, "mode", at, out);
}

fn channel(v: &Value, at: &str, out: &mut Vec<Cause>) {
    let (names, ids) = (!arr(v, "/targetWWNs").is_empty(), !arr(v, "/wwids").is_empty());
    let at_names = format!("{at}.targetWWNs");
    match (names, ids) {
        (false, false) => {
            out.push(Cause::required(at_names, "must specify either targetWWNs or wwids, but not both"));
        }
        (true, true) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            out.push(Cause::invalid(at_names, &v["targetWWNs"], why));
        }
        _ => {}
    }
    if names && v["lun"].is_null() {
        out.push(Cause::required(format!("{at}.lun"), "lun is required if targetWWNs is specified"));
    }
}

fn projected(v: &Value, at: &str, out: &mut Vec<Cause>) {
    let mut paths: Vec<&str> = Vec::new();
    for (i, source) in arr(v, "/sources").iter().enumerate() {
        let here = format!("{at}.sources[{i}]");
        for sort in ["secret", "configMap"].into_iter().filter(|k| source[*k].is_object()) {
            let (one, here) = (&source[sort], format!("{here}.{sort}"));
            if s(one, "/name").is_empty() {
                out.push(Cause::required(format!("{here}.name"), ""));
            }
            for (j, item) in arr(one, "/items").iter().enumerate() {
                key_to_path(item, &format!("{here}.items[{j}]"), out);
                taken(s(item, "/path"), &one["name"], at, &mut paths, out);
            }
        }
        for f in arr(source, "/downwardAPI/items") {
            file(f, &format!("{here}.downwardAPI"), out);
            taken(s(f, "/path"), &f["path"], at, &mut paths, out);
        }
        let token = &source["serviceAccountToken"];
        if token.is_object() {
            let (field, seconds) =
                (format!("{here}.serviceAccountToken.expirationSeconds"), &token["expirationSeconds"]);
            if seconds.as_i64().is_some_and(|n| n < 600) {
                out.push(Cause::invalid(field, seconds, "may not specify a duration less than 10 minutes"));
            } else if seconds.as_i64().is_some_and(|n| n > 1 << 32) {
                out.push(Cause::invalid(field, seconds, "may not specify a duration larger than 2^32 seconds"));
            }
            match s(token, "/path") {
                "" => out.push(Cause::required(format!("{at}.path"), "")),
                path => local(path, &format!("{at}.path"), out),
            }
        }
        if source.as_object().is_some_and(|m| m.values().filter(|v| v.is_object()).count() > 1) {
            out.push(forbidden(&here, "may not specify more than 1 volume type per source"));
        }
    }
}

fn taken<'a>(path: &'a str, whose: &Value, at: &str, paths: &mut Vec<&'a str>, out: &mut Vec<Cause>) {
    if path.is_empty() {
        return;
    }
    if paths.contains(&path) {
        out.push(Cause::invalid(at, whose, "conflicting duplicate paths"));
    } else {
        paths.push(path);
    }
}

/// The claim that is made for a pod.
fn claim(template: &Value, at: &str, out: &mut Vec<Cause>) {
    if template.is_object() {
        selector(&template["spec"]["selector"], &format!("{at}.spec.selector"), out);
        volumes::claim(&template["spec"], &format!("{at}.spec"), out);
    }
}
