//! Sending requests: token, trust, envelope, retries of reads.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::core::units::Secret;
use crate::options;
use crate::site::ProxmoxSection;

use super::error::{ApiError, ApiResult, Fault};
use super::request::{self, Request};
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
        /// API token `user@realm!tokenid`.
        token_id: String,
        /// The token's secret: a reference such as `env:NAME`, or a secret.
        token: rhai::Dynamic,
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
    let Some(file) = &o.ca_file else { return Ok(Trust::System) };
    let base = ctx.site.as_ref().and_then(|s| s.path.parent().map(std::path::Path::to_owned));
    let path = base.unwrap_or_else(|| ctx.base_dir.clone()).join(file);
    let pem = std::fs::read_to_string(&path).map_err(|e| {
        OpError::not_found(format!("cannot read the CA file `{}`", path.display())).because(e.to_string())
    })?;
    Ok(Trust::Ca(pem))
}

fn secret(ctx: &Ctx, o: &ConnectOptions) -> OpResult<Secret> {
    if let Some(s) = o.token.clone().try_cast::<Secret>() {
        return Ok(s);
    }
    let reference = o.token.clone().into_string().map_err(|t| {
        OpError::invalid(format!("option `token`: expected a secret reference such as `env:NAME`, found {t}"))
    })?;
    ctx.secret_ref("proxmox_token", &reference)
}

impl Proxmox {
    /// Connects: reads the token and asks for the version, so that wrong trust or a wrong token shows at once.
    ///
    /// # Errors
    /// `unreachable` with the fingerprint to pin; `denied` for a wrong token.
    pub async fn connect(ctx: &Ctx, o: &ConnectOptions) -> OpResult<Proxmox> {
        let (host, port) = address(&o.url)?;
        ctx.run_op(Op::read("proxmox", "connect", &host), |_| async {
            let shown = Shown::default();
            let config = tls::client_config(&host, &trust(ctx, o)?, shown.clone())?;
            let http = reqwest::Client::builder()
                .tls_backend_preconfigured(config)
                .http1_only()
                .no_proxy()
                .connect_timeout(CONNECT)
                .timeout(ANSWER)
                .pool_max_idle_per_host(16)
                .tcp_nodelay(true)
                .build()
                .map_err(|e| OpError::failed("the HTTP client cannot be set up").because(e.to_string()))?;
            let token = secret(ctx, o)?;
            ctx.hide(token.reveal());
            let auth = Secret::new(format!("PVEAPIToken={}={}", o.token_id, token.reveal().trim()));
            let section = ProxmoxSection {
                url: o.url.clone(),
                token_id: o.token_id.clone(),
                token: String::new(),
                fingerprint: o.fingerprint.clone(),
                ca_file: o.ca_file.clone(),
                pve_node: o.pve_node.clone(),
                storage: o.storage.clone(),
                image_storage: o.image_storage.clone(),
            };
            let pve = Proxmox {
                inner: Arc::new(Inner {
                    section,
                    host: host.clone(),
                    port,
                    http,
                    auth,
                    shown,
                    clones: Mutex::new(HashMap::new()),
                    version: Mutex::new(None),
                }),
            };
            pve.version(ctx).await?;
            Ok(pve)
        })
        .await
    }

    /// Connects as the loaded site file says.
    ///
    /// # Errors
    /// Like [`Proxmox::connect`]; `invalid` without a site file.
    pub async fn connect_site(ctx: &Ctx) -> OpResult<Proxmox> {
        let p = ctx.site()?.proxmox.clone();
        let o = ConnectOptions {
            url: p.url,
            token_id: p.token_id,
            token: p.token.into(),
            fingerprint: p.fingerprint,
            ca_file: p.ca_file,
            pve_node: p.pve_node,
            storage: p.storage,
            image_storage: p.image_storage,
        };
        Proxmox::connect(ctx, &o).await
    }

    /// The server's version, for example `9.1.1`; asked once.
    ///
    /// # Errors
    /// What the request met.
    pub async fn version(&self, ctx: &Ctx) -> OpResult<String> {
        if let Some(v) = self.inner.version.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(v);
        }
        let answer = self.send(ctx, &request::get("/version")).await?;
        let v = answer["version"].as_str().unwrap_or_default().to_owned();
        *self.inner.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(v.clone());
        Ok(v)
    }

    /// Sends a request and returns `data`. A read is repeated when no answer came; a write never is,
    /// because its outcome is unknown then: the caller reads first.
    ///
    /// # Errors
    /// The classified answer.
    pub async fn send(&self, ctx: &Ctx, request: &Request) -> ApiResult<Value> {
        if request.is_read() {
            let what = format!("{} {}", request.method, request.path);
            let worth = |e: &ApiError| e.is(&Fault::Unreachable) && !self.untrusted(e);
            return ctx.retry(&self.inner.host, &what, worth, || self.send_once(ctx, request)).await;
        }
        let answer = self.send_once(ctx, request).await;
        ctx.edge();
        answer
    }

    fn untrusted(&self, e: &ApiError) -> bool {
        e.causes.iter().any(|c| c.contains("certificate"))
    }

    fn url_of(&self, ctx: &Ctx, request: &Request) -> OpResult<String> {
        let (host, port) = ctx.dialer.resolve(&self.inner.host, self.inner.port)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(format!("https://{host}:{port}/api2/json{}", request.path))
    }

    fn build(&self, ctx: &Ctx, request: &Request) -> OpResult<reqwest::RequestBuilder> {
        let mut b = self
            .inner
            .http
            .request(request.method.clone(), self.url_of(ctx, request)?)
            .header(AUTHORIZATION, self.inner.auth.reveal())
            .header(ACCEPT, "application/json");
        if ctx.lab {
            b = b.header("x-gpuhost-clock", "shared");
        }
        if !request.query.is_empty() {
            b = b.query(&request.query);
        }
        Ok(b)
    }

    /// Sends a request once, whatever it is: for reads whose answer can be had only once.
    ///
    /// # Errors
    /// The classified answer.
    pub(super) async fn send_once(&self, ctx: &Ctx, request: &Request) -> ApiResult<Value> {
        let name = format!("{} {}", request.method, request.path);
        let mut b = self.build(ctx, request).map_err(|e| ApiError::transport(name.clone(), e.message, e.causes))?;
        if let Some(body) = &request.body {
            b = b.json(body);
        }
        self.answer(name, b.send().await).await
    }

    async fn answer(&self, name: String, got: reqwest::Result<reqwest::Response>) -> ApiResult<Value> {
        let response = match got {
            Ok(r) => r,
            Err(e) => return Err(self.no_answer(name, &e)),
        };
        let status = response.status();
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().map_or_else(
            || status.canonical_reason().unwrap_or_default().to_owned(),
            |r| String::from_utf8_lossy(r.as_bytes()).into_owned(),
        );
        let bytes = match response.bytes().await {
            Ok(b) => b,
            Err(e) => return Err(self.no_answer(name, &e)),
        };
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(body.get("data").cloned().unwrap_or(Value::Null));
        }
        let mut e = ApiError::read(name, status.as_u16(), &reason, &body);
        let text = String::from_utf8_lossy(&bytes);
        if body.is_null() && !text.trim().is_empty() {
            e.causes.push(text.trim().chars().take(300).collect());
        }
        Err(e)
    }

    fn no_answer(&self, name: String, e: &reqwest::Error) -> ApiError {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(e);
        while let Some(s) = source {
            let text = s.to_string();
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            source = s.source();
        }
        let at = &self.inner.section.url;
        let refused = causes.iter().any(|c| c.contains("certificate") || c.contains("UnknownIssuer"));
        if !refused {
            let what = if e.is_timeout() { "did not answer in time" } else { "did not answer" };
            return ApiError::transport(name, format!("Proxmox at {at} {what}"), causes);
        }
        let mut out = ApiError::transport(name, format!("nothing trusts the certificate of {at}"), causes);
        if let Some(f) = self.inner.shown.get() {
            out.causes.insert(0, format!("it shows the fingerprint {f}"));
            out.hint = Some(format!(
                "compare it with the hypervisor (`pvenode cert info`), then add `fingerprint = \"{f}\"` to [proxmox] in the site file"
            ));
        }
        out
    }

    /// Uploads a file; `content` is `iso` or `import`. Returns the task.
    ///
    /// # Errors
    /// The classified answer.
    pub async fn upload(
        &self,
        ctx: &Ctx,
        node: &str,
        storage: &str,
        content: &str,
        file: &str,
        bytes: Vec<u8>,
    ) -> ApiResult<String> {
        let r = request::post(format!("/nodes/{node}/storage/{storage}/upload"), Value::Null);
        let name = format!("POST {}", r.path);
        let b = self.build(ctx, &r).map_err(|e| ApiError::transport(name.clone(), e.message, e.causes))?;
        // The order matters: the file comes last.
        let part = reqwest::multipart::Part::bytes(bytes).file_name(file.to_owned());
        let part = part
            .mime_str("application/octet-stream")
            .map_err(|e| ApiError::transport(name.clone(), e.to_string(), Vec::new()))?;
        let form = reqwest::multipart::Form::new().text("content", content.to_owned()).part("filename", part);
        let answer = self.answer(name, b.multipart(form).send().await).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Like [`Proxmox::send`], with "it is not there" as `None`.
    ///
    /// # Errors
    /// Everything else.
    pub async fn find(&self, ctx: &Ctx, request: &Request) -> ApiResult<Option<Value>> {
        match self.send(ctx, request).await {
            Ok(v) => Ok(Some(v)),
            Err(e) if e.is(&Fault::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }
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
