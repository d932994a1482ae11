//! What K3s accepts in its configuration, tokens, and what must be equal on all servers.
use serde_json::Value;

use gpuhost_stdlib::wire::k3s::{CRITICAL, Known, known};

use super::super::state::{Cluster, K3sProcess, Role};
use super::super::text::{arr, s, shown};

/// Refuses what K3s refuses before it starts anything.
///
/// # Errors
/// K3s' own text.
pub fn refuse(p: &K3sProcess) -> Result<(), String> {
    if p.role == Role::Agent {
        if s(&p.config, "/server").is_empty() {
            return Err("--server is required".to_owned());
        }
        if token(&p.config).is_empty() {
            return Err("--token is required".to_owned());
        }
    }
    let server = s(&p.config, "/server");
    if !server.is_empty() && !server.starts_with("https://") {
        return Err(format!("--server must be an https URL: {server}"));
    }
    Ok(())
}

/// Takes out what this release does not know; K3s skips such options of its file with a warning.
pub fn skip_unknown(p: &mut K3sProcess) -> Vec<String> {
    let server = p.role == Role::Server;
    let Some(map) = p.config.as_object_mut() else { return Vec::new() };
    let skipped: Vec<String> =
        map.keys().filter(|k| known(k, &p.version, server) != Known::Yes).map(String::clone).collect();
    for k in &skipped {
        map.remove(k);
    }
    skipped.into_iter().map(|k| format!("Unknown flag --{k} found in config.yaml, skipping")).collect()
}

/// The token of a configuration (a token file has been read into `token` by the guest).
#[must_use]
pub fn token(config: &Value) -> &str {
    match s(config, "/token") {
        "" => s(config, "/K3S_TOKEN"),
        t => t.trim(),
    }
}

/// Strings of an option that may be a list, one string, or a comma list.
#[must_use]
pub fn list(config: &Value, key: &str) -> Vec<String> {
    match &config[key] {
        Value::String(t) => t.split(',').map(|x| x.trim().to_owned()).filter(|x| !x.is_empty()).collect(),
        Value::Array(_) => arr(config, &format!("/{key}")).iter().map(shown).collect(),
        _ => Vec::new(),
    }
}

/// The value of an argument of the API server.
#[must_use]
pub fn api_server_arg(config: &Value, name: &str) -> Option<String> {
    let all = list(config, "kube-apiserver-arg");
    all.iter().rev().find_map(|a| a.trim_start_matches('-').strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// Whether an option is switched on.
#[must_use]
pub fn on(config: &Value, key: &str) -> bool {
    config[key] == true || config[key] == "true"
}

/// Checks a joiner's token.
///
/// # Errors
/// K3s' own text when the CA hash or the password is wrong.
pub fn check_token(c: &Cluster, given: &str, role: Role, url: &str) -> Result<(), String> {
    let password = match given.strip_prefix("K10").and_then(|r| r.split_once("::")) {
        Some((hash, credentials)) => {
            if hash != c.id {
                return Err(format!(
                    "failed to validate token: token CA hash does not match the Cluster CA certificate hash: {hash} != {}",
                    c.id
                ));
            }
            credentials.split_once(':').map_or(credentials, |(_, p)| p)
        }
        None => given,
    };
    let own = c.token.as_str();
    let fits = password == own || (role == Role::Agent && c.agent_token.as_deref() == Some(password));
    if fits {
        return Ok(());
    }
    Err(match role {
        Role::Server => format!(
            "starting kubernetes: preparing server: failed to bootstrap cluster data: failed to check if bootstrap data has been initialized: failed to get CA certs: {url}/v1-k3s/server-bootstrap: 401 Unauthorized: not authorized"
        ),
        Role::Agent => format!("failed to retrieve configuration from server: {url}/v1-k3s/config: 401 Unauthorized"),
    })
}

/// Compares values that must be equal on all servers.
///
/// # Errors
/// K3s' own text, with the names of the values.
pub fn check_critical(first: &Value, joiner: &Value) -> Result<(), String> {
    let text = |c: &Value, key: &str| match &c[key] {
        Value::Null => String::new(),
        Value::Bool(false) => String::new(),
        Value::String(t) => t.clone(),
        v => v.to_string(),
    };
    let mut names: Vec<&str> =
        CRITICAL.iter().filter(|(key, _)| text(first, key) != text(joiner, key)).map(|(_, name)| *name).collect();
    let servicelb = |c: &Value| list(c, "disable").iter().any(|d| d == "servicelb");
    if servicelb(first) != servicelb(joiner) {
        names.push("DisableServiceLB");
    }
    if names.is_empty() {
        return Ok(());
    }
    Err(format!(
        "starting kubernetes: preparing server: failed to validate server configuration: critical configuration value mismatch between servers: {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_and_critical_values() {
        let c = Cluster { id: "ab".into(), token: "pw".into(), ..Cluster::default() };
        assert!(check_token(&c, "K10ab::server:pw", Role::Server, "https://x").is_ok());
        assert!(check_token(&c, "pw", Role::Agent, "https://x").is_ok());
        let e = check_token(&c, "K10cd::server:pw", Role::Server, "https://x").unwrap_err();
        assert!(e.contains("token CA hash does not match"), "{e}");
        let e =
            check_critical(&json!({"cluster-cidr": "10.42.0.0/16"}), &json!({"disable": ["servicelb"]})).unwrap_err();
        assert!(e.ends_with("ClusterIPRanges, DisableServiceLB"), "{e}");
    }

    #[test]
    fn unknown_options_are_skipped_with_a_warning() {
        let config = json!({"cluster-int": true, "tls-san": ["a"], "write-kubeconfig-name": "x"});
        let mut p = K3sProcess { role: Role::Server, version: "v1.34.9+k3s1".into(), config };
        assert_eq!(skip_unknown(&mut p).len(), 2);
        assert_eq!(p.config, json!({"tls-san": ["a"]}));
    }
}
