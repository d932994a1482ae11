//! What a node's disk and systemd say, and writing it: one round trip to read, a few to write.
use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::config::{ADMISSION, AUDIT, BINARY, CONFIG, Part, REGISTRIES, config_changes, policies_left, to_yaml, unit};
use super::options::Airgap;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::OpScope;
use crate::ssh::{Host, Output, quote};

/// kube-vip's manifest.
const VIP_MANIFEST: &str = "/var/lib/rancher/k3s/server/manifests/kube-vip.yaml";

/// What was found on a node.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Version of the binary; empty when there is none.
    pub version: String,
    /// config.yaml; `Null` when there is none.
    pub config: Value,
    /// registries.yaml.
    pub registries: Value,
    /// The unit's text.
    pub unit: String,
    /// What `systemctl is-active` says.
    pub active: String,
    /// etcd data is there: the node is, or was, a member.
    pub member: bool,
    /// The server's token file.
    pub token: String,
    /// What the API server reads at its start: path and text.
    pub policies: BTreeMap<&'static str, String>,
    /// Whether the unit starts at boot.
    pub enabled: bool,
    /// The machine has a node password: it joined a cluster before.
    pub registered: bool,
    /// kube-vip's manifest.
    pub manifest: String,
}

/// A server's token in full: the hash of the cluster's CA, and the password.
pub fn full_token(ca_hash: &str, password: &str) -> String {
    format!("K10{ca_hash}::server:{password}")
}

impl Found {
    /// Hash of the cluster's CA in the token file.
    #[must_use]
    pub fn ca_hash(&self) -> Option<&str> {
        self.token.strip_prefix("K10")?.split("::").next()
    }

    /// Password that the server's datastore is bound to: of the token file, else of the configuration that its first start
    /// took it from; `None` where there is no datastore.
    #[must_use]
    pub fn born_with(&self) -> Option<&str> {
        let of_file = self.password().filter(|_| self.ca_hash().is_some());
        of_file.or_else(|| self.configured_password().filter(|_| self.member))
    }

    /// Password part of the configuration's token.
    #[must_use]
    pub fn configured_password(&self) -> Option<&str> {
        self.config["token"].as_str().map(plain_token).filter(|t| !t.is_empty())
    }

    /// Password part of the token file.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.token.rsplit("::server:").next().filter(|p| !p.is_empty())
    }
}

/// The password in a token of any form: `K10<hash>::server:<password>`, or the password alone.
pub(super) fn plain_token(token: &str) -> &str {
    let token = token.trim();
    match token.strip_prefix("K10").and_then(|t| t.split_once("::")) {
        Some((_, cred)) => cred.split_once(':').map_or(cred, |(_, p)| p),
        None => token,
    }
}

fn read_script(part: Part) -> String {
    let unit = part.unit();
    format!(
        "b={BINARY}\n\
         [ -x $b ] && echo \"version=$($b --version | head -n 1)\"\n\
         show() {{ [ -f \"$2\" ] && echo \"$1=$(base64 -w0 \"$2\")\"; }}\n\
         show config {CONFIG}\nshow registries {REGISTRIES}\nshow audit {AUDIT}\nshow admission {ADMISSION}\n\
         show unit /etc/systemd/system/{unit}.service\n\
         show token /var/lib/rancher/k3s/server/token\n\
         [ -d /var/lib/rancher/k3s/server/db/etcd ] && echo member=yes\n\
         [ -f /etc/rancher/node/password ] && echo registered=yes\nshow manifest {VIP_MANIFEST}\n\
         echo \"active=$(systemctl is-active {unit} 2>/dev/null)\"\n\
         echo \"enabled=$(systemctl is-enabled {unit} 2>/dev/null)\"\ntrue\n"
    )
}

/// Reads the answer of the read script.
#[must_use]
pub fn parse_found(text: &str) -> Found {
    let map: BTreeMap<_, _> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let raw = |k: &str| map.get(k).copied().unwrap_or_default().trim().to_owned();
    let file = |k: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(raw(k)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let yaml = |k: &str| serde_saphyr::from_str::<Value>(&file(k)).unwrap_or(Value::Null);
    // k3s version v1.34.9+k3s1 (abcdef)
    let version = raw("version")
        .split_whitespace()
        .find(|w| w.starts_with('v') && w.contains('.'))
        .unwrap_or_default()
        .to_owned();
    Found {
        version,
        config: yaml("config"),
        registries: yaml("registries"),
        unit: file("unit"),
        active: raw("active"),
        member: raw("member") == "yes",
        token: file("token").trim().to_owned(),
        policies: [(AUDIT, file("audit")), (ADMISSION, file("admission"))].into(),
        enabled: raw("enabled") == "enabled",
        registered: raw("registered") == "yes",
        manifest: file("manifest"),
    }
}

/// Reads a node.
///
/// # Errors
/// `unreachable`, `denied`, or `failed` when the shell did not run.
pub async fn look(ctx: &Ctx, host: &Host, part: Part) -> OpResult<Found> {
    let out = host.look_raw(ctx, &read_script(part)).await.map_err(|e| e.on(host.name()))?;
    if out.code != 0 {
        let mut e = OpError::failed("the state of K3s cannot be read").on(host.name());
        e.causes = out.last_words();
        return Err(e);
    }
    Ok(parse_found(&out.stdout))
}

/// What a node should have.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Server or agent.
    pub part: Part,
    /// Release.
    pub version: String,
    /// config.yaml.
    pub config: Value,
    /// registries.yaml.
    pub registries: Option<Value>,
    /// Files that the API server reads at its start: path and text.
    pub policies: Vec<(&'static str, String)>,
    /// kube-vip's manifest, on the server that leads.
    pub manifest: Option<String>,
    /// Files that are brought instead of downloads.
    pub airgap: Airgap,
}

impl Wanted {
    /// What differs from what was found.
    #[must_use]
    pub fn changes(&self, host: &str, found: &Found) -> Vec<Change> {
        let mut out = Vec::new();
        if found.version != self.version {
            let before = (!found.version.is_empty()).then(|| found.version.clone().into());
            out.push(Change::new(host, "k3s version", before, Some(self.version.clone().into())));
        }
        out.extend(config_changes(host, "config.yaml", &found.config, &self.config));
        let mirrors = self.registries.clone().unwrap_or(Value::Null);
        out.extend(config_changes(host, "registries.yaml", &found.registries, &mirrors));
        for (path, text) in &self.policies {
            let before = found.policies.get(path).filter(|t| !t.is_empty());
            if before != Some(text) {
                let before = before.map(|_| "other".into());
                out.push(Change::new(host, format!("file {path}"), before, Some("present".into())));
            }
        }
        for path in self.left(found) {
            out.push(Change::new(host, format!("file {path}"), Some("present".into()), None));
        }
        if self.manifest.as_ref().is_some_and(|m| *m != found.manifest) {
            let before = (!found.manifest.is_empty()).then(|| "other".into());
            out.push(Change::new(host, "manifest kube-vip.yaml", before, Some("present".into())));
        }
        let name = self.part.unit();
        if found.unit != unit(self.part) {
            let before = (!found.unit.is_empty()).then(|| "other".into());
            out.push(Change::new(host, format!("unit {name}.service"), before, Some("present".into())));
        }
        if !found.enabled {
            out.push(Change::new(host, format!("service {name} at boot"), Some(false.into()), Some(true.into())));
        }
        if found.active != "active" && found.active != "activating" {
            let before = (!found.active.is_empty()).then(|| found.active.clone().into());
            out.push(Change::new(host, format!("service {name}"), before, Some("active".into())));
        }
        out
    }

    /// Policies that nobody asks for any more; agents have none.
    fn left(&self, found: &Found) -> Vec<&'static str> {
        match self.part {
            Part::Server => policies_left(&self.config, &found.policies),
            Part::Agent => Vec::new(),
        }
    }

    /// Whether K3s has to start again to take the changes.
    #[must_use]
    pub fn needs_restart(&self, found: &Found) -> bool {
        // K3s applies a manifest when the file changes
        let registration = ["config.yaml node-label", "config.yaml node-taint", "manifest kube-vip.yaml"];
        // a policy that goes counts as well: the start after the configuration that named it may not have come
        self.changes("", found).iter().any(|c| !registration.contains(&c.what.as_str()))
    }

    /// Writes it: binary, files, unit, start. Does not wait.
    ///
    /// # Errors
    /// `not_found` for a version that does not exist; `failed` with what the node said.
    pub async fn write(&self, s: &OpScope, host: &Host, found: &Found) -> OpResult<()> {
        self.write_files(s, host, found).await?;
        if !self.needs_restart(found) {
            // labels and taints of the file count at first registration only: the API has them already
            return Ok(());
        }
        self.launch(s, host).await
    }

    /// Binary, files and unit: nothing is started.
    ///
    /// # Errors
    /// As [`Wanted::write`].
    pub async fn write_files(&self, s: &OpScope, host: &Host, found: &Found) -> OpResult<()> {
        let ctx = s.ctx();
        if found.version != self.version {
            s.waiting(format!("downloads K3s {}", self.version));
            bring(ctx, host, &self.version, &self.airgap).await?;
        }
        put_file(ctx, host, CONFIG, "0600", &to_yaml(&self.config)).await?;
        match &self.registries {
            Some(r) => put_file(ctx, host, REGISTRIES, "0600", &to_yaml(r)).await?,
            None if !found.registries.is_null() => remove_file(ctx, host, REGISTRIES).await?,
            None => {}
        }
        for (path, text) in &self.policies {
            put_file(ctx, host, path, "0600", text).await?;
        }
        for path in self.left(found) {
            remove_file(ctx, host, path).await?;
        }
        if let Some(text) = &self.manifest {
            put_file(ctx, host, VIP_MANIFEST, "0600", text).await?;
        }
        let name = self.part.unit();
        put_file(ctx, host, &format!("/etc/systemd/system/{name}.service"), "0644", &unit(self.part)).await
    }

    /// Starts the unit, now and at boot. Does not wait.
    ///
    /// # Errors
    /// `failed` with what the node said.
    pub async fn launch(&self, s: &OpScope, host: &Host) -> OpResult<()> {
        let name = self.part.unit();
        // without waiting: a server's unit is active only when it is ready, and we say meanwhile what it waits for
        let start =
            format!("set -e\nsystemctl daemon-reload\nsystemctl enable {name}\nsystemctl restart --no-block {name}\n");
        checked(s.ctx(), host, &start, b"", &format!("`{name}` cannot be started")).await?;
        s.accepted(format!("unit {name} on {}", host.name()))
    }
}

/// Runs a script; a code other than 0 is an error that says `what`.
///
/// # Errors
/// `failed` with the last lines of the script.
pub async fn checked(ctx: &Ctx, host: &Host, script: &str, stdin: &[u8], what: &str) -> OpResult<String> {
    let out = host.exec_raw(ctx, script, stdin).await.map_err(|e| e.on(host.name()))?;
    if out.code == 0 {
        return Ok(out.stdout);
    }
    let mut e = OpError::failed(what).on(host.name());
    e.causes = out.last_words();
    if e.causes.is_empty() {
        e.causes.push(format!("exit code {}", out.code));
    }
    Err(e)
}

/// Writes a file atomically. The text goes by standard input: it may hold a token.
///
/// # Errors
/// `failed` with what the node said.
pub async fn put_file(ctx: &Ctx, host: &Host, path: &str, mode: &str, text: &str) -> OpResult<()> {
    let dir = path.rsplit_once('/').map_or("/", |(d, _)| d);
    let (q, tmp) = (quote(path), quote(&format!("{path}.gpuhost")));
    let script =
        format!("set -e\numask 077\nmkdir -p {}\ncat > {tmp}\nchmod {mode} {tmp}\nmv -f {tmp} {q}\n", quote(dir));
    checked(ctx, host, &script, text.as_bytes(), &format!("`{path}` cannot be written")).await.map(drop)
}

async fn remove_file(ctx: &Ctx, host: &Host, path: &str) -> OpResult<()> {
    checked(ctx, host, &format!("rm -f {}", quote(path)), b"", &format!("`{path}` cannot be removed")).await.map(drop)
}

/// The download script: checks the binary against the release's own checksums before it is put in place.
#[must_use]
pub fn install_script(version: &str) -> String {
    let base = release_url(version);
    format!(
        "set -u\ncase \"$(uname -m)\" in aarch64|arm64) arch=arm64; file=k3s-arm64;; *) arch=amd64; file=k3s;; esac\n\
         d=$(mktemp -d) || exit 40\n\
         curl -fsSL --retry 3 -o \"$d/sums\" \"{base}/sha256sum-$arch.txt\" || exit 44\n\
         want=$(grep \" $file\\$\" \"$d/sums\" | cut -d' ' -f1)\n\
         [ -n \"$want\" ] || {{ echo 'the release lists no checksum of its binary' >&2; exit 45; }}\n\
         curl -fsSL --retry 3 -o \"$d/k3s\" \"{base}/$file\" || exit 45\n\
         got=$(sha256sum \"$d/k3s\" | cut -d' ' -f1)\n\
         [ \"$got\" = \"$want\" ] || {{ echo \"checksum is $got, the release says $want\" >&2; rm -rf \"$d\"; exit 46; }}\n\
         install -m 0755 \"$d/k3s\" {BINARY} || exit 47\nrm -rf \"$d\"\n\
         for l in kubectl crictl ctr; do [ -e /usr/local/bin/$l ] || ln -s k3s /usr/local/bin/$l; done\n"
    )
}

/// Puts the binary in place: the one that is brought, else the release's own from the internet; then the images.
///
/// # Errors
/// `not_found` for a local file that is absent; `failed` for a wrong checksum or another version; as [`install`].
pub async fn bring(ctx: &Ctx, host: &Host, version: &str, airgap: &Airgap) -> OpResult<()> {
    for path in &airgap.images {
        let name = path.rsplit('/').next().unwrap_or(path);
        let target = format!("/var/lib/rancher/k3s/agent/images/{name}");
        upload(ctx, host, path, &target, "0644", "").await?;
    }
    if airgap.binary.is_empty() {
        return install(ctx, host, version).await;
    }
    upload(ctx, host, &airgap.binary, BINARY, "0755", &airgap.sha256).await?;
    let links = "for l in kubectl crictl ctr; do [ -e /usr/local/bin/$l ] || ln -s k3s /usr/local/bin/$l; done\n";
    let script = format!("{links}{BINARY} --version | head -n 1");
    let said = checked(ctx, host, &script, b"", "the uploaded binary does not run").await?;
    if said.split_whitespace().any(|w| w == version) {
        return Ok(());
    }
    Err(OpError::invalid(format!("`{}` is not K3s {version}", airgap.binary))
        .on(host.name())
        .because(said.trim().to_owned())
        .hint("`version` and `binary` of the [k3s] section have to fit"))
}

/// Brings a local file to a node; its checksum is compared on both sides.
async fn upload(ctx: &Ctx, host: &Host, local: &str, path: &str, mode: &str, sha256: &str) -> OpResult<()> {
    let full = crate::flow::files::granted(ctx, local)?;
    let bytes = std::fs::read(&full).map_err(|e| {
        OpError::not_found(format!("cannot read `{local}`"))
            .because(e.to_string())
            .hint(format!("the path is taken from {}", ctx.base_dir.display()))
    })?;
    let sum = super::snapshot::hex(&bytes);
    if !sha256.is_empty() && sum != sha256 {
        return Err(OpError::failed(format!("`{local}` has a wrong checksum"))
            .because(format!("sha256 is {sum}, wanted is {sha256}"))
            .hint("download it again, or correct `binary_sha256`"));
    }
    let (q, tmp) = (quote(path), quote(&format!("{path}.gpuhost")));
    let dir = path.rsplit_once('/').map_or("/", |(d, _)| d);
    let there = host.look_raw(ctx, &format!("sha256sum {q} 2>/dev/null")).await.map_err(|e| e.on(host.name()))?;
    if there.stdout.starts_with(&sum) {
        return Ok(());
    }
    let script = format!(
        "set -e\nmkdir -p {}\ncat > {tmp}\necho '{sum}  {path}.gpuhost' | sha256sum -c - >/dev/null\nchmod {mode} {tmp}\nmv -f {tmp} {q}\n",
        quote(dir)
    );
    let limits = crate::ssh::RunOptions { timeout: crate::core::units::Duration::minutes(40), ..Default::default() };
    let out = host.exec_with(ctx, &script, &bytes, &limits).await.map_err(|e| e.on(host.name()))?;
    if out.code == 0 {
        return Ok(());
    }
    let mut e = OpError::failed(format!("`{path}` cannot be written")).on(host.name());
    e.causes = out.last_words();
    Err(e)
}

/// Where the files of a release are.
fn release_url(version: &str) -> String {
    format!("https://github.com/k3s-io/k3s/releases/download/{}", version.replace('+', "%2B"))
}

/// Asks from the node whether a release is there, by its list of checksums.
///
/// # Errors
/// `not_found` for a version that does not exist; `unreachable` without internet.
pub async fn exists(ctx: &Ctx, host: &Host, version: &str) -> OpResult<()> {
    let ask = format!("curl -fsSL --retry 3 -o /dev/null '{}/sha256sum-amd64.txt' || exit 44", release_url(version));
    let out = host.look_raw(ctx, &ask).await.map_err(|e| e.on(host.name()))?;
    came(&out, version, host)
}

/// Downloads a release on the node.
///
/// # Errors
/// `not_found` for a version that does not exist; `unreachable` without internet; `failed` for a wrong checksum.
pub async fn install(ctx: &Ctx, host: &Host, version: &str) -> OpResult<()> {
    let out = host.exec_raw(ctx, &install_script(version), b"").await.map_err(|e| e.on(host.name()))?;
    came(&out, version, host)
}

/// Whether a release came, and why not.
fn came(out: &Output, version: &str, host: &Host) -> OpResult<()> {
    let mut e = match out.code {
        0 => return Ok(()),
        44 if out.stderr.contains("404") => OpError::not_found(format!("there is no K3s release `{version}`"))
            .hint("see https://github.com/k3s-io/k3s/releases and correct `version` in the [k3s] section"),
        44 | 45 => OpError::unreachable(format!("K3s {version} cannot be downloaded"))
            .hint("the node needs github.com: check its DNS, gateway and proxy (`curl -fsSLI https://github.com`)"),
        46 => OpError::failed(format!("the binary of K3s {version} has a wrong checksum"))
            .hint("something between the node and github.com changes files: a proxy or a mirror"),
        c => OpError::failed(format!("K3s {version} cannot be installed")).because(format!("exit code {c}")),
    };
    e.causes.extend(out.last_words());
    Err(e.on(host.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_datastore_is_bound_to_the_token_of_its_first_start() {
        let config = json!({"token": "K10aa::server:first"});
        let f = Found { config, member: true, ..Found::default() };
        assert_eq!(f.born_with(), Some("first"), "no token file yet: the first start was cut short");
        let f = Found { token: "K10aa::server:rotated".into(), ..f };
        assert_eq!(f.born_with(), Some("rotated"));
        let f = Found { token: String::new(), member: false, ..f };
        assert_eq!((f.born_with(), f.configured_password()), (None, Some("first")));
    }

    #[test]
    fn found_reads_the_scripts_answer() {
        let b = |t: &str| base64::engine::general_purpose::STANDARD.encode(t);
        let text = format!(
            "version=k3s version v1.34.9+k3s1 (abc)\nconfig={}\ntoken={}\nmember=yes\nactive=active\nenabled=enabled\n",
            b("cluster-init: true\n"),
            b("K10aa::server:pw\n")
        );
        let f = parse_found(&text);
        assert_eq!(
            (f.version.as_str(), f.member, f.ca_hash(), f.password()),
            ("v1.34.9+k3s1", true, Some("aa"), Some("pw"))
        );
        let w = Wanted {
            part: Part::Server,
            version: "v1.34.9+k3s1".into(),
            config: json!({"cluster-init": true}),
            registries: None,
            policies: Vec::new(),
            manifest: None,
            airgap: Airgap::default(),
        };
        let changes = w.changes("a", &f);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].what.contains("k3s.service"));
        let f = Found { unit: unit(Part::Server), ..f };
        assert!(w.changes("a", &f).is_empty());
        let labelled = Wanted { config: json!({"cluster-init": true, "node-label": ["a=b"]}), ..w.clone() };
        assert!(labelled.changes("a", &f).len() == 1 && !labelled.needs_restart(&f));
        let other = Wanted { config: json!({"cluster-init": true, "debug": true}), ..w };
        assert!(other.needs_restart(&f));
    }

    #[test]
    fn plus_signs_are_escaped_in_urls() {
        assert!(install_script("v1.34.9+k3s1").contains("/v1.34.9%2Bk3s1/sha256sum-$arch.txt"));
    }
}
