//! Who we are to the server: an API token, or a user whose ticket is renewed before it ends.
use std::sync::{Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::core::ctx::Ctx;
use crate::core::units::Secret;

use super::error::{ApiError, ApiResult, Fault};
use super::request::{self, Request, percent};
use super::types::Proxmox;

/// Proxmox ends a ticket after two hours; it is renewed well before that.
const RENEW_MS: u64 = 90 * 60 * 1000;
const LIFE_MS: u64 = 120 * 60 * 1000;

/// How requests say who asks.
pub(super) enum Auth {
    /// An API token: the whole header value.
    Token(Secret),
    /// A user with a password: the only way to be root@pam.
    Login(Login),
}

/// A user that logs in.
pub(super) struct Login {
    user: String,
    password: Secret,
    ticket: Mutex<Option<Ticket>>,
}

#[derive(Clone)]
struct Ticket {
    value: Secret,
    csrf: Secret,
    born_ms: u64,
}

/// What to present to get a ticket.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The one at hand will do.
    Keep,
    /// Present the old ticket.
    Renew,
    /// Present the password.
    LogIn,
}

/// A ticket of this age: keep, renew, or log in again.
fn next(age_ms: Option<u64>) -> Next {
    match age_ms {
        Some(a) if a < RENEW_MS => Next::Keep,
        Some(a) if a < LIFE_MS => Next::Renew,
        _ => Next::LogIn,
    }
}

impl Auth {
    pub(super) fn token(id: &str, secret: &str) -> Self {
        Auth::Token(Secret::new(format!("PVEAPIToken={id}={}", secret.trim())))
    }
    pub(super) fn login(user: &str, password: Secret) -> Self {
        Auth::Login(Login { user: user.to_owned(), password, ticket: Mutex::new(None) })
    }
    /// Whether this is root@pam with a password: what may set raw PCI addresses.
    pub(super) fn is_root(&self) -> bool {
        matches!(self, Auth::Login(l) if l.user == "root@pam")
    }
    /// Forgets a ticket that the server no longer takes; says whether there was one.
    pub(super) fn forget(&self) -> bool {
        match self {
            Auth::Token(_) => false,
            Auth::Login(l) => l.ticket.lock().unwrap_or_else(PoisonError::into_inner).take().is_some(),
        }
    }
}

/// The ticket as a cookie's value. Proxmox undoes percent-encoding, other servers may not: only what a
/// cookie cannot hold is encoded.
fn cookie(ticket: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ';' | ',' | '"' | '\\' | '%');
    ticket.chars().map(|c| if plain(c) { c.to_string() } else { percent(&c.to_string()) }).collect()
}

fn header(out: &mut HeaderMap, name: HeaderName, secret: &str) {
    if let Ok(mut v) = HeaderValue::from_str(secret) {
        v.set_sensitive(true);
        out.insert(name, v);
    }
}

impl Proxmox {
    /// The headers that say who asks; logs in or renews the ticket when it is time.
    pub(super) async fn identity(&self, ctx: &Ctx, r: &Request) -> ApiResult<HeaderMap> {
        let mut out = HeaderMap::new();
        let login = match &self.inner.auth {
            Auth::Token(value) => {
                header(&mut out, AUTHORIZATION, value.reveal());
                return Ok(out);
            }
            Auth::Login(l) => l,
        };
        let ticket = self.ticket(ctx, login).await?;
        header(&mut out, COOKIE, &format!("PVEAuthCookie={}", cookie(ticket.value.reveal())));
        if !r.is_read() {
            header(&mut out, HeaderName::from_static("csrfpreventiontoken"), ticket.csrf.reveal());
        }
        Ok(out)
    }

    async fn ticket(&self, ctx: &Ctx, login: &Login) -> ApiResult<Ticket> {
        let have = login.ticket.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = ctx.clock.last_ms();
        let age = have.as_ref().map(|t| now.saturating_sub(t.born_ms));
        let fresh = match (next(age), have) {
            (Next::Keep, Some(t)) => return Ok(t),
            (Next::Renew, Some(old)) => match self.log_in(ctx, &login.user, &old.value, now).await {
                Err(e) if e.is(&Fault::Unauthorized) => self.log_in(ctx, &login.user, &login.password, now).await?,
                other => other?,
            },
            _ => self.log_in(ctx, &login.user, &login.password, now).await?,
        };
        *login.ticket.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh.clone());
        Ok(fresh)
    }

    async fn log_in(&self, ctx: &Ctx, user: &str, proof: &Secret, now: u64) -> ApiResult<Ticket> {
        let r = request::post("/access/ticket", json!({ "username": user, "password": proof.reveal() }));
        let answer = self.send_as(ctx, &r, HeaderMap::new()).await.map_err(|mut e| {
            if e.is(&Fault::Unauthorized) {
                e.hint = Some("check `proxmox.user` (with its realm, as `root@pam`) and `proxmox.password`".to_owned());
            }
            e
        })?;
        let text = |k: &str| answer[k].as_str().unwrap_or_default().to_owned();
        if super::inventory::is_on(&answer["NeedTFA"]) || text("ticket").starts_with("PVE:!tfa!") {
            let mut e =
                ApiError::transport("POST /access/ticket".to_owned(), "a second factor is asked for", Vec::new());
            e.fault = Fault::Unauthorized;
            e.hint = Some("give this user an API token and use `token_id` and `token` instead".to_owned());
            return Err(e);
        }
        let (value, csrf) = (text("ticket"), text("CSRFPreventionToken"));
        ctx.hide(&value);
        ctx.hide(&cookie(&value));
        ctx.hide(&csrf);
        Ok(Ticket { value: Secret::new(value), csrf: Secret::new(csrf), born_ms: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_renewed_before_it_ends() {
        let minutes = |m: u64| Some(m * 60_000);
        assert_eq!(next(None), Next::LogIn);
        assert_eq!(next(minutes(0)), Next::Keep);
        assert_eq!(next(minutes(89)), Next::Keep);
        assert_eq!(next(minutes(91)), Next::Renew);
        assert_eq!(next(minutes(121)), Next::LogIn);
    }

    #[test]
    fn a_ticket_is_a_cookie_as_it_is() {
        assert_eq!(cookie("PVE:root@pam:6B02::a+b/c=="), "PVE:root@pam:6B02::a+b/c==");
        assert_eq!(cookie("a;b c%d"), "a%3Bb%20c%25d");
    }

    #[test]
    fn only_a_login_of_root_is_root() {
        assert!(Auth::login("root@pam", Secret::new("x")).is_root());
        assert!(!Auth::login("ops@pve", Secret::new("x")).is_root());
        assert!(!Auth::token("root@pam!t", "x").is_root());
    }
}
