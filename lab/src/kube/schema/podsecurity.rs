//! Rules of what a pod shares with its node: users, security contexts, its names and addresses, the system it is for.
//! Grade: source (the validation of the core group).
use serde_json::{Value, json};

use super::rules::{duplicate, forbidden, one_of, words};
use super::validate::judged;
use super::{ips, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const USERS: &str = "must be between 0 and 2147483647, inclusive";
const SERVERS: usize = 3;
const SEARCHES: usize = 32;

fn user(context: &Value, at: &str, fields: &[&str], out: &mut Vec<Cause>) {
    for f in fields {
        if context[*f].as_i64().is_some_and(|n| !(0..=i64::from(i32::MAX)).contains(&n)) {
            out.push(Cause::invalid(format!("{at}.{f}"), &context[*f], USERS));
        }
    }
}

/// The security context of a pod.
pub(super) fn pod(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let (context, at) = (&spec["securityContext"], format!("{path}.securityContext"));
    user(context, &at, &["fsGroup", "runAsUser", "runAsGroup"], out);
    for (i, g) in arr(context, "/supplementalGroups").iter().enumerate() {
        if g.as_i64().is_some_and(|n| !(0..=i64::from(i32::MAX)).contains(&n)) {
            out.push(Cause::invalid(format!("{at}.supplementalGroups[{i}]"), g, USERS));
        }
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(Cause::invalid(format!("{at}.shareProcessNamespace"), &true.into(), why));
    }
    sysctls(arr(context, "/sysctls"), &format!("{at}.sysctls"), out);
    one_of(format!("{at}.fsGroupChangePolicy"), &context["fsGroupChangePolicy"], &["Always", "OnRootMismatch"], out);
    profiles(context, &at, out);
    one_of(format!("{at}.supplementalGroupsPolicy"), &context["supplementalGroupsPolicy"], &["Merge", "Strict"], out);
    one_of(format!("{at}.seLinuxChangePolicy"), &context["seLinuxChangePolicy"], &["MountOption", "Recursive"], out);
}

fn sysctls(list: &[Value], at: &str, out: &mut Vec<Cause>) {
    let segment = |p: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        edge(p.chars().next()) && edge(p.chars().last()) && p.chars().all(plain)
    };
    for (i, c) in list.iter().enumerate() {
        let (at, name) = (format!("{at}[{i}].name"), s(c, "/name"));
        if name.is_empty() {
            out.push(Cause::required(at, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(segment) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            out.push(Cause::invalid(at, &name.into(), why));
        } else if list[..i].iter().any(|x| x["name"] == c["name"]) {
            out.push(duplicate(at, &c["name"]));
        }
    }
}

/// Profiles of seccomp and AppArmor.
fn profiles(context: &Value, at: &str, out: &mut Vec<Cause>) {
    let (p, here) = (&context["seccompProfile"], format!("{at}.seccompProfile"));
    if p.is_object() {
        let (sort, own) = (s(p, "/type"), &p["localhostProfile"]);
        let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
        if sort.is_empty() {
            out.push(Cause::required(format!("{here}.type"), "type is required when seccompProfile is set"));
        } else {
            one_of(format!("{here}.type"), &p["type"], &kinds, out);
        }
        let field = format!("{here}.localhostProfile");
        match (sort, own.as_str()) {
            ("Localhost", None) => out.push(Cause::required(field, "must be set when seccomp type is Localhost")),
            ("Localhost", Some(path)) => descending(&field, path, out),
            (_, Some(_)) => {
                let shown = json!({"Type": sort, "LocalhostProfile": own});
                out.push(Cause::invalid(field, &shown, "can only be set when seccomp type is Localhost"));
            }
            _ => {}
        }
    }
    let (p, here) = (&context["appArmorProfile"], format!("{at}.appArmorProfile"));
    if p.is_object() {
        let (sort, own) = (s(p, "/type"), p["localhostProfile"].as_str());
        let field = format!("{here}.localhostProfile");
        let missing = "must be set when AppArmor type is Localhost";
        match (sort, own) {
            ("", _) => {
                out.push(Cause::required(format!("{here}.type"), "type is required when appArmorProfile is set"))
            }
            ("Localhost", None | Some("")) => out.push(Cause::required(field, missing)),
            ("Localhost", Some(name)) if name.trim() != name => {
                out.push(Cause::invalid(field, &name.into(), "must not be padded with whitespace"));
            }
            ("RuntimeDefault" | "Unconfined", Some(name)) => {
                out.push(Cause::invalid(field, &name.into(), "can only be set when AppArmor type is Localhost"));
            }
            ("Localhost" | "RuntimeDefault" | "Unconfined", _) => {}
            _ => one_of(format!("{here}.type"), &p["type"], &["Localhost", "RuntimeDefault", "Unconfined"], out),
        }
    }
}

/// A path that stays below where it begins.
pub(super) fn descending(at: &str, path: &str, out: &mut Vec<Cause>) {
    if path.starts_with('/') {
        out.push(Cause::invalid(at, &path.into(), "must be a relative path"));
    }
    if path.split('/').any(|p| p == "..") {
        out.push(Cause::invalid(at, &path.into(), BACKSTEP));
    }
}

/// What is said of a path that leads upwards.
pub(super) const BACKSTEP: &str = "must not contain '..'";

/// The security context of a container.
pub(super) fn container(c: &Value, at: &str, host_users: bool, out: &mut Vec<Cause>) {
    if !c.is_object() {
        return;
    }
    user(c, at, &["runAsUser", "runAsGroup"], out);
    one_of(format!("{at}.procMount"), &c["procMount"], &["Default", "Unmasked"], out);
    if host_users && c["procMount"] == "Unmasked" {
        let why = "`hostUsers` must be false to use `Unmasked`";
        out.push(Cause::invalid(format!("{at}.procMount"), &c["procMount"], why));
    }
    let seccomp = json!({"seccompProfile": c["seccompProfile"]});
    profiles(&seccomp, at, out);
    if c["allowPrivilegeEscalation"] == false {
        let all = |f: &str| arr(c, &format!("/capabilities/{f}")).to_vec();
        let mut say = |what: &str| {
            let why = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
            out.push(Cause::invalid(at, &as_go(c), &why));
        };
        if c["privileged"] == true {
            say("`privileged` to true");
        }
        for _ in all("add").iter().filter(|x| *x == "CAP_SYS_ADMIN") {
            say("`capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    let armor = json!({"appArmorProfile": c["appArmorProfile"]});
    profiles(&armor, at, out);
}

/// A security context as the server has it inside.
fn as_go(c: &Value) -> Value {
    let list = |f: &str| c["capabilities"].get(f).cloned().unwrap_or_default();
    let capabilities =
        if c["capabilities"].is_object() { json!({"Add": list("add"), "Drop": list("drop")}) } else { Value::Null };
    json!({"Capabilities": capabilities, "Privileged": c["privileged"], "SELinuxOptions": c["seLinuxOptions"],
        "WindowsOptions": c["windowsOptions"], "RunAsUser": c["runAsUser"], "RunAsGroup": c["runAsGroup"],
        "RunAsNonRoot": c["runAsNonRoot"], "ReadOnlyRootFilesystem": c["readOnlyRootFilesystem"],
        "AllowPrivilegeEscalation": c["allowPrivilegeEscalation"], "ProcMount": c["procMount"],
        "SeccompProfile": c["seccompProfile"], "AppArmorProfile": c["appArmorProfile"]})
}

/// Whom a pod asks for names.
pub(super) fn dns(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let (config, at) = (&spec["dnsConfig"], format!("{path}.dnsConfig"));
    if spec["dnsPolicy"] == "None" {
        if !config.is_object() {
            out.push(Cause::required(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if arr(config, "/nameservers").is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            out.push(Cause::required(format!("{at}.nameservers"), why));
            return;
        }
    }
    let (servers, searches) = (arr(config, "/nameservers"), arr(config, "/searches"));
    if servers.len() > SERVERS {
        let why = format!("must not have more than {SERVERS} nameservers");
        out.push(Cause::invalid(format!("{at}.nameservers"), &config["nameservers"], &why));
    }
    for (i, server) in servers.iter().enumerate() {
        ips::sound(&format!("{at}.nameservers[{i}]"), server.as_str().unwrap_or_default(), out);
    }
    if searches.len() > SEARCHES {
        let why = format!("must not have more than {SEARCHES} search paths");
        out.push(Cause::invalid(format!("{at}.searches"), &config["searches"], &why));
    }
    for (i, search) in searches.iter().enumerate() {
        let text = search.as_str().unwrap_or_default();
        let name = text.strip_suffix('.').unwrap_or(text);
        if text != "." && !names::subdomain(&name.replace('_', "a")).is_empty() {
            out.push(Cause::invalid(format!("{at}.searches[{i}]"), &name.into(), UNDERSCORED));
        }
    }
    for (i, _) in arr(config, "/options").iter().enumerate().filter(|(_, o)| s(o, "/name").is_empty()) {
        out.push(Cause::required(format!("{at}.options[{i}]"), "must not be empty"));
    }
}

const UNDERSCORED: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";

/// Entries of the hosts file.
pub(super) fn aliases(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    for (i, a) in arr(spec, "/hostAliases").iter().enumerate() {
        let at = format!("{path}.hostAliases[{i}]");
        ips::sound(&format!("{at}.ip"), s(a, "/ip"), out);
        for (j, name) in arr(a, "/hostnames").iter().enumerate() {
            judged(format!("{at}.hostnames[{j}]"), name.as_str().unwrap_or_default(), names::subdomain, out);
        }
    }
}

/// Users of its own: such a pod shares nothing with its node.
pub(super) fn users(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    if spec["hostUsers"] != false {
        return;
    }
    for (f, at) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec[f] == true {
            out.push(forbidden(&format!("{path}.{at}"), "when `hostUsers` is false"));
        }
    }
}

/// What the other system has.
const UNIX: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "shareProcessNamespace",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];

/// The same of a container.
const UNIX_CONTAINER: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// The system that a pod says it is for.
pub(super) fn system(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    if !spec["os"].is_object() {
        return;
    }
    let windows = match s(spec, "/os/name") {
        "" => {
            out.push(Cause::required(format!("{path}.os.name"), ""));
            return;
        }
        "linux" => false,
        "windows" => true,
        name => {
            out.push(Cause::unsupported(format!("{path}.os"), &name.into(), &words(&["linux", "windows"])));
            return;
        }
    };
    let context = format!("{path}.securityContext");
    let set = |v: &Value| !v.is_null() && *v != false;
    let lists = ["initContainers", "containers"];
    let all = lists.iter().flat_map(|l| arr(spec, &format!("/{l}")).iter().enumerate().map(move |(i, c)| (*l, i, c)));
    if windows {
        let why = "cannot be set for a windows pod";
        for f in UNIX {
            let own = matches!(*f, "hostUsers" | "hostPID" | "hostIPC" | "shareProcessNamespace");
            let (at, v) = if own { (path, &spec[*f]) } else { (context.as_str(), &spec["securityContext"][*f]) };
            if set(v) {
                out.push(forbidden(&format!("{at}.{f}"), why));
            }
        }
        for (list, i, c) in all {
            for f in UNIX_CONTAINER.iter().filter(|f| !c["securityContext"][**f].is_null()) {
                out.push(forbidden(&format!("{path}.{list}[{i}].securityContext.{f}"), why));
            }
        }
        return;
    }
    let why = "windows options cannot be set for a linux pod";
    if spec["securityContext"]["windowsOptions"].is_object() {
        out.push(forbidden(&format!("{context}.windowsOptions"), why));
    }
    for (list, i, _) in all.filter(|(.., c)| c["securityContext"]["windowsOptions"].is_object()) {
        out.push(forbidden(&format!("{path}.{list}[{i}].securityContext.windowsOptions"), why));
    }
}
