//! K3s in a guest: which versions can be downloaded, what a unit starts, how its configuration is merged.
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::fs::Who;
use super::live::Machine;
use super::units::Unit;
use crate::kube::{K3sProcess, Role};

/// Versions the lab's downloads have.
pub const VERSIONS: &[&str] = &[
    "v1.31.14+k3s1",
    "v1.32.10+k3s1",
    "v1.32.13+k3s1",
    "v1.33.5+k3s1",
    "v1.33.8+k3s1",
    "v1.33.13+k3s1",
    "v1.34.1+k3s1",
    "v1.34.4+k3s1",
    "v1.34.9+k3s1",
    "v1.34.10+k3s1",
    "v1.35.2+k3s1",
    "v1.35.7+k3s1",
    "v1.36.1+k3s1",
    "v1.36.3+k3s1",
    "v1.37.1+k3s1",
];

/// The binary of a version: its first line makes it a program of the lab, its bytes depend on the version alone.
#[must_use]
pub fn binary(version: &str) -> Vec<u8> {
    let mut b = format!("#!/usr/lib/lab/program k3s {version}\n").into_bytes();
    let mut block = Sha256::digest(version.as_bytes()).to_vec();
    for _ in 0..128 {
        b.extend(block.iter().flat_map(|x| format!("{x:02x}").into_bytes()));
        b.push(b'\n');
        block = Sha256::digest(&block).to_vec();
    }
    b
}

/// The version of a file that is a K3s binary of the lab, unchanged.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Option<String> {
    let first = bytes.split(|b| *b == b'\n').next()?;
    let v = std::str::from_utf8(first).ok()?.strip_prefix("#!/usr/lib/lab/program k3s ")?;
    (binary(v) == bytes).then(|| v.to_owned())
}

/// Whether a unit is K3s' by its name.
#[must_use]
pub fn is_unit(name: &str) -> bool {
    matches!(name, "k3s.service" | "k3s-agent.service")
}

/// Whether command lines start K3s.
#[must_use]
pub fn runs_k3s(exec: &[String]) -> bool {
    exec.iter().any(|e| {
        let mut words = e.trim_start_matches(['-', '@', '+', '!', ':']).split_whitespace();
        words.next().is_some_and(|p| p.ends_with("/k3s")) && words.next().is_some_and(|v| v == "server" || v == "agent")
    })
}

/// What the unit would run.
///
/// # Errors
/// Why systemd cannot start it, in its words.
pub fn process(m: &Machine, u: &Unit) -> Result<K3sProcess, String> {
    let exec = u.get("Service.ExecStart").to_owned();
    let words = split_words(exec.trim_start_matches(['-', '@', '+', '!', ':']));
    let path = words.first().cloned().unwrap_or_default();
    let bytes = m
        .files
        .read(&Who::root(), &path)
        .map_err(|_| format!("{}: Failed to locate executable {path}: No such file or directory", u.name))?;
    let mode = m.files.stat(&Who::root(), &path, true).map(|n| n.mode).unwrap_or_default();
    if mode & 0o111 == 0 {
        return Err(format!("{}: Failed at step EXEC spawning {path}: Permission denied", u.name));
    }
    let version = version_of(&bytes)
        .ok_or_else(|| format!("{}: Failed at step EXEC spawning {path}: Exec format error", u.name))?;
    let role = match words.get(1).map(String::as_str) {
        Some("agent") => Role::Agent,
        _ => Role::Server,
    };
    let mut config = files_config(m)?;
    let mut env: Vec<(String, String)> = Vec::new();
    for e in u.keys.get("Service.Environment").into_iter().flatten() {
        env.extend(split_words(e).iter().filter_map(|p| p.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))));
    }
    for file in u.keys.get("Service.EnvironmentFile").into_iter().flatten() {
        for line in m.files.text(file.trim_start_matches('-')).lines() {
            if let Some((k, v)) = line.trim().split_once('=').filter(|(k, _)| !k.starts_with('#')) {
                env.push((k.to_owned(), v.trim_matches(['"', '\'']).to_owned()));
            }
        }
    }
    from_env(&mut config, &env);
    flags(&mut config, &words[2.min(words.len())..]);
    for (file, key) in [("token-file", "token"), ("agent-token-file", "agent-token")] {
        if let (Some(path), None) = (config[file].as_str().map(str::to_owned), config[key].as_str()) {
            config[key] = json!(m.files.text(&path).trim());
        }
    }
    Ok(K3sProcess { role, version, config })
}

/// The configuration of `k3s server …` called by hand: its files, then the command line.
///
/// # Errors
/// What K3s says to a file it cannot read.
pub fn by_hand(m: &Machine, words: &[String]) -> Result<Value, String> {
    let mut config = files_config(m)?;
    flags(&mut config, words);
    if let (Some(path), None) = (config["token-file"].as_str().map(str::to_owned), config["token"].as_str()) {
        config["token"] = json!(m.files.text(&path).trim());
    }
    Ok(config)
}

/// `/etc/rancher/k3s/config.yaml` and its drop-ins.
fn files_config(m: &Machine) -> Result<Value, String> {
    let main = "/etc/rancher/k3s/config.yaml";
    let mut paths = vec![main.to_owned()];
    let dir = "/etc/rancher/k3s/config.yaml.d";
    for (name, _) in m.files.list(&Who::root(), dir).unwrap_or_default() {
        if name.ends_with(".yaml") || name.ends_with(".yml") {
            paths.push(format!("{dir}/{name}"));
        }
    }
    let mut config = Map::new();
    for path in paths {
        let text = m.files.text(&path);
        if text.trim().is_empty() {
            continue;
        }
        let v: Value = serde_saphyr::from_str(&text)
            .map_err(|e| format!("level=fatal msg=\"failed to load config file {path}: yaml: {e}\""))?;
        let Value::Object(map) = v else {
            return Err(format!("level=fatal msg=\"failed to load config file {path}: yaml: unmarshal errors\""));
        };
        for (k, v) in map {
            match k.strip_suffix('+') {
                Some(key) => append(&mut config, key, v),
                None => {
                    config.insert(k, v);
                }
            }
        }
    }
    Ok(Value::Object(config))
}

fn append(config: &mut Map<String, Value>, key: &str, v: Value) {
    let old = config.entry(key.to_owned()).or_insert_with(|| json!([]));
    if !old.is_array() {
        *old = json!([old.clone()]);
    }
    if let Some(list) = old.as_array_mut() {
        match v {
            Value::Array(more) => list.extend(more),
            v => list.push(v),
        }
    }
}

fn from_env(config: &mut Value, env: &[(String, String)]) {
    for (k, v) in env {
        let key = match k.as_str() {
            "K3S_TOKEN" => "token",
            "K3S_TOKEN_FILE" => "token-file",
            "K3S_AGENT_TOKEN" => "agent-token",
            "K3S_URL" => "server",
            "K3S_NODE_NAME" => "node-name",
            "K3S_KUBECONFIG_MODE" => "write-kubeconfig-mode",
            "K3S_DATASTORE_ENDPOINT" => "datastore-endpoint",
            "K3S_CLUSTER_INIT" => "cluster-init",
            "K3S_DATA_DIR" => "data-dir",
            _ => continue,
        };
        if config[key].is_null() && !v.is_empty() {
            config[key] = if key == "cluster-init" { json!(v == "true") } else { json!(v) };
        }
    }
}

/// Flags that may be given more than once.
const LISTS: &[&str] = &[
    "tls-san",
    "disable",
    "node-label",
    "node-taint",
    "kubelet-arg",
    "kube-apiserver-arg",
    "kube-controller-manager-arg",
    "kube-scheduler-arg",
    "kube-proxy-arg",
    "etcd-arg",
    "node-ip",
    "node-external-ip",
    "cluster-cidr",
    "service-cidr",
    "kube-cloud-controller-manager-arg",
    "helm-controller-arg",
];

fn flags(config: &mut Value, words: &[String]) {
    let mut it = words.iter().peekable();
    while let Some(w) = it.next() {
        let Some(flag) = w.strip_prefix("--").or_else(|| w.strip_prefix('-')) else { continue };
        let (key, value) = match flag.split_once('=') {
            Some((k, v)) => (k.to_owned(), json!(v)),
            None => match it.peek().filter(|n| !n.starts_with('-')) {
                Some(v) => {
                    let pair = (flag.to_owned(), json!(v.as_str()));
                    it.next();
                    pair
                }
                None => (flag.to_owned(), json!(true)),
            },
        };
        let key = match key.as_str() {
            "t" => "token".to_owned(),
            "s" => "server".to_owned(),
            _ => key,
        };
        let value = match value.as_str() {
            Some("true") => json!(true),
            Some("false") => json!(false),
            _ => value,
        };
        if let Some(map) = config.as_object_mut() {
            if LISTS.contains(&key.as_str()) { append(map, &key, value) } else { drop(map.insert(key, value)) }
        }
    }
}

/// Splits a command line as systemd does: blanks, quotes.
#[must_use]
pub fn split_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for ch in line.chars() {
        match quote {
            Some(q) if ch == q => quote = None,
            Some(_) => word.push(ch),
            None if ch == '\'' || ch == '"' => {
                quote = Some(ch);
                any = true;
            }
            None if ch.is_whitespace() || ch == '\\' => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            None => word.push(ch),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::text::sha256_of;

    #[test]
    fn a_binary_knows_its_version_and_a_changed_one_does_not() {
        let b = binary("v1.34.9+k3s1");
        assert_eq!(version_of(&b).as_deref(), Some("v1.34.9+k3s1"));
        let mut broken = b.clone();
        broken[100] ^= 1;
        assert_eq!(version_of(&broken), None);
        assert_ne!(sha256_of(&b), sha256_of(&binary("v1.34.1+k3s1")));
    }

    #[test]
    fn flags_are_merged_into_the_configuration() {
        let mut c = json!({"disable": ["traefik"]});
        let words = split_words("--disable servicelb --tls-san=10.0.0.9 --cluster-init --write-kubeconfig-mode '0644'");
        flags(&mut c, &words);
        assert_eq!(
            c,
            json!({"disable": ["traefik", "servicelb"], "tls-san": ["10.0.0.9"], "cluster-init": true, "write-kubeconfig-mode": "0644"})
        );
    }
}
