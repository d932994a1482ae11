//! Connecting: where, as whom, and whom to trust. The first contact shows the fingerprint and asks.
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::core::units::Secret;
use crate::options;
use crate::site::ProxmoxSection;

use super::auth::Auth;
use super::tls::{self, Shown, Trust};
use super::types::{Inner, Proxmox};

/// Longer than Proxmox's own limit of 30 s for anything it proxies.
const ANSWER: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(15);

options! {
    /// How to reach the hypervisor: the `[proxmox]` section of the site file.
    pub struct ConnectOptions {
        /// `https://host:8006`, any node of the cluster.
        url: String,
        /// API token `user@realm!tokenid`; or `user` and `password`.
        token_id: Option<String> = None,
        /// The token's secret: a reference such as `env:NAME`, or a secret.
        token: rhai::Dynamic = rhai::Dynamic::UNIT,
        /// User `name@realm` that logs in with a password instead of a token; root@pam may use raw PCI addresses.
        user: Option<String> = None,
        /// The user's password: a reference such as `env:NAME`, or a secret.
        password: rhai::Dynamic = rhai::Dynamic::UNIT,
        /// SHA-256 fingerprint of the server's certificate, to pin it.
        fingerprint: Option<String> = None,
        /// CA file (PEM) to trust.
        ca_file: Option<String> = None,
        /// Hypervisor node for what does not name one.
        pve_node: String,
        /// Storage of VM disks.
        storage: String,
        /// Storage of cloud images and ISOs.
        image_storage: String,
    }
}

/// Host and port of `https://host:port`.
fn address(url: &str) -> OpResult<(String, u16)> {
    let bad = || OpError::invalid(format!("`{url}` is not a Proxmox URL")).hint("write it as `https://10.0.0.2:8006`");
    let parsed = reqwest::Url::parse(url).map_err(|e| bad().because(e.to_string()))?;
    if parsed.scheme() != "https" {
        return Err(bad().because("only https is spoken"));
    }
    let host = parsed.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    Ok((host, parsed.port().unwrap_or(8006)))
}

fn trust(ctx: &Ctx, o: &ConnectOptions) -> OpResult<Trust> {
    if let Some(pem) = ctx.secrets.get("proxmox_ca") {
        return Ok(Trust::Ca(pem.clone()));
    }
    if let Some(f) = &o.fingerprint {
        return Ok(Trust::Fingerprint(f.clone()));
    }
    if let Some(f) = ctx.cached::<String>(&accepted_key(&o.url)) {
        return Ok(Trust::Fingerprint(f.as_ref().clone()));
    }
    let Some(file) = &o.ca_file else { return Ok(Trust::System) };
    let base = ctx.site.as_ref().and_then(|s| s.path.parent().map(std::path::Path::to_owned));
    let path = base.unwrap_or_else(|| ctx.base_dir.clone()).join(file);
    let pem = std::fs::read_to_string(&path).map_err(|e| {
        OpError::not_found(format!("cannot read the CA file `{}`", path.display()))
            .because(e.to_string())
            .hint("copy `/etc/pve/pve-root-ca.pem` from the hypervisor, or set `fingerprint` instead")
    })?;
    Ok(Trust::Ca(pem))
}

fn accepted_key(url: &str) -> String {
    format!("proxmox trust {url}")
}

fn secret(ctx: &Ctx, name: &str, option: &str, given: &rhai::Dynamic) -> OpResult<Secret> {
    if let Some(s) = given.clone().try_cast::<Secret>() {
        return Ok(s);
    }
    let reference = given.clone().into_string().map_err(|t| {
        OpError::invalid(format!("option `{option}`: expected a secret reference such as `env:NAME`, found {t}"))
    })?;
    ctx.secret_ref(name, &reference)
}

fn auth(ctx: &Ctx, o: &ConnectOptions) -> OpResult<Auth> {
    match (&o.token_id, &o.user) {
        (Some(id), None) => {
            if !id.contains('!') || !id.contains('@') {
                return Err(OpError::invalid(format!("`{id}` is not a token id"))
                    .hint("write it as `user@realm!tokenid`; a user with a password goes into `user` and `password`"));
            }
            let token = secret(ctx, "proxmox_token", "token", &o.token)?;
            ctx.hide(token.reveal());
            Ok(Auth::token(id, token.reveal()))
        }
        (None, Some(user)) => {
            if !user.contains('@') {
                return Err(OpError::invalid(format!("`{user}` has no realm")).hint(format!("write `{user}@pam`")));
            }
            let password = secret(ctx, "proxmox_password", "password", &o.password)?;
            ctx.hide(password.reveal());
            Ok(Auth::login(user, password))
        }
        (None, None) => Err(OpError::invalid("neither a token nor a user is named")
            .hint("set `token_id` and `token` under [proxmox], or `user` and `password`")),
        (Some(_), Some(_)) => Err(OpError::invalid("both a token and a user are named")
            .hint("keep `token_id` and `token`, or `user` and `password`")),
    }
}

fn client(host: &str, trust: &Trust, shown: &Shown) -> OpResult<reqwest::Client> {
    let config = tls::client_config(host, trust, shown.clone())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .pool_max_idle_per_host(16)
        .tcp_nodelay(true)
        .build()
        .map_err(|e| OpError::failed("the HTTP client cannot be set up").because(e.to_string()))
}

/// The question of a first contact.
fn question(url: &str, fingerprint: &str) -> String {
    format!(
        "nothing vouches for the certificate of {url}. It shows the fingerprint\n  {fingerprint}\n\
         Compare it with `pvenode cert info` on the hypervisor. Trust it for this run?"
    )
}

/// The line that makes the answer last.
fn line(fingerprint: &str) -> String {
    format!("add `fingerprint = \"{fingerprint}\"` to [proxmox] in the site file")
}

impl Proxmox {
    /// Connects: logs in and asks for the version, so that wrong trust or a wrong token shows at once.
    ///
    /// # Errors
    /// `denied` for a certificate that nobody vouches for, or a wrong token; `unreachable`.
    pub async fn connect(ctx: &Ctx, o: &ConnectOptions) -> OpResult<Proxmox> {
        let (host, port) = address(&o.url)?;
        ctx.run_op(Op::read("proxmox", "connect", &host), |_| async {
            let trusted = trust(ctx, o)?;
            let pve = Proxmox::over(ctx, o, (&host, port), &trusted)?;
            let e = match pve.version(ctx).await {
                Ok(_) => return Ok(pve),
                Err(e) => e,
            };
            let Some(shown) = pve.inner.shown.refused() else { return Err(e) };
            match trusted {
                Trust::System => {}
                Trust::Fingerprint(pin) => return Err(changed(&o.url, &pin, &shown)),
                Trust::Ca(_) => return Err(e.hint(line(&shown))),
            }
            first_contact(ctx, &o.url, &shown)?;
            let pve = Proxmox::over(ctx, o, (&host, port), &Trust::Fingerprint(shown))?;
            pve.version(ctx).await?;
            Ok(pve)
        })
        .await
    }

    fn over(ctx: &Ctx, o: &ConnectOptions, at: (&str, u16), trust: &Trust) -> OpResult<Proxmox> {
        let shown = Shown::default();
        let section = ProxmoxSection {
            url: o.url.clone(),
            token_id: o.token_id.clone().unwrap_or_default(),
            token: String::new(),
            user: o.user.clone(),
            password: None,
            fingerprint: o.fingerprint.clone(),
            ca_file: o.ca_file.clone(),
            pve_node: o.pve_node.clone(),
            storage: o.storage.clone(),
            image_storage: o.image_storage.clone(),
        };
        // One clone queue per hypervisor and run, however often the recipe connects.
        let key = format!("proxmox clones {}", o.url);
        let clones = ctx.cached(&key).unwrap_or_else(|| {
            let fresh = Arc::new(super::types::Queue::default());
            ctx.keep(key, fresh.clone());
            fresh
        });
        Ok(Proxmox {
            inner: Arc::new(Inner {
                section,
                host: at.0.to_owned(),
                port: at.1,
                http: client(at.0, trust, &shown)?,
                auth: auth(ctx, o)?,
                shown,
                clones,
                claimed: Mutex::new(HashSet::new()),
                ids: Mutex::new(HashSet::new()),
                version: Mutex::new(None),
            }),
        })
    }

    /// Connects as the loaded site file says.
    ///
    /// # Errors
    /// Like [`Proxmox::connect`]; `invalid` without a site file.
    pub async fn connect_site(ctx: &Ctx) -> OpResult<Proxmox> {
        let p = ctx.site()?.proxmox.clone();
        let some = |t: String| (!t.is_empty()).then_some(t);
        let o = ConnectOptions {
            url: p.url,
            token_id: some(p.token_id),
            token: some(p.token).map_or(rhai::Dynamic::UNIT, Into::into),
            user: p.user,
            password: p.password.map_or(rhai::Dynamic::UNIT, Into::into),
            fingerprint: p.fingerprint,
            ca_file: p.ca_file,
            pve_node: p.pve_node,
            storage: p.storage,
            image_storage: p.image_storage,
        };
        Proxmox::connect(ctx, &o).await
    }
}

/// Asks about a certificate that nothing vouches for.
fn first_contact(ctx: &Ctx, url: &str, shown: &str) -> OpResult<()> {
    let unknown = |e: OpError| {
        e.because(format!("it shows the fingerprint {shown}"))
            .hint(format!("compare it with `pvenode cert info` on the hypervisor, then {}", line(shown)))
    };
    let agreed = ctx.consent.trust(&question(url, shown)).map_err(&unknown)?;
    if !agreed {
        return Err(unknown(OpError::refused(format!("the certificate of {url} was not accepted"))));
    }
    ctx.keep(accepted_key(url), Arc::new(shown.to_owned()));
    ctx.message("warn", format!("{url} is trusted for this run only: {}", line(shown)));
    Ok(())
}

/// A pinned certificate that is another one now is never asked about.
fn changed(url: &str, pin: &str, shown: &str) -> OpError {
    OpError::refused(format!("the certificate of {url} is not the one that the site file pins"))
        .because(format!("pinned: {pin}"))
        .because(format!("shown:  {shown}"))
        .hint(format!(
            "if it was renewed on purpose (`pvenode cert info` on the hypervisor shows the same): {}; otherwise somebody else answers there",
            line(shown)
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_https_and_default_to_8006() {
        assert_eq!(address("https://10.0.0.2:8006").unwrap(), ("10.0.0.2".to_owned(), 8006));
        assert_eq!(address("https://pve.lab.example").unwrap(), ("pve.lab.example".to_owned(), 8006));
        assert_eq!(address("https://[fd00::2]:8006/").unwrap(), ("fd00::2".to_owned(), 8006));
        for bad in ["http://10.0.0.2:8006", "10.0.0.2", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
