//! Who sent a request: API tokens, tickets and CSRF tokens.
use base64::Engine;
use sha2::{Digest, Sha256};

use super::acl::Who;
use super::params::unescape;
use super::reply::ApiError;
use super::state::Pve;

/// Tickets live this long.
const LIFETIME_S: u64 = 7200;

fn sign(pve: &Pve, text: &str) -> String {
    let sum = Sha256::digest(format!("{}:{text}", pve.ticket_key));
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(sum)
}

/// A ticket for `user`, and the CSRF token that belongs to it.
#[must_use]
pub fn ticket(pve: &Pve, user: &str, now_s: u64) -> (String, String) {
    let plain = format!("PVE:{user}:{now_s:08X}");
    let csrf = format!("{now_s:08X}:{user}");
    (format!("{plain}::{}", sign(pve, &plain)), format!("{now_s:08X}:{}", sign(pve, &csrf)))
}

/// The user of a valid ticket.
#[must_use]
pub fn read_ticket(pve: &Pve, ticket: &str, now_s: u64) -> Option<String> {
    let (plain, sig) = ticket.split_once("::")?;
    let (user, time) = plain.strip_prefix("PVE:")?.rsplit_once(':')?;
    let born = u64::from_str_radix(time, 16).ok()?;
    let fresh = born <= now_s + 300 && now_s.saturating_sub(born) <= LIFETIME_S;
    let known = pve.access.users.get(user).is_some_and(|u| u.enable);
    (fresh && known && sig == sign(pve, plain)).then(|| user.to_owned())
}

fn csrf_ok(pve: &Pve, user: &str, token: &str, now_s: u64) -> bool {
    let Some((time, sig)) = token.split_once(':') else { return false };
    let fresh = u64::from_str_radix(time, 16).is_ok_and(|t| now_s.saturating_sub(t) <= LIFETIME_S);
    fresh && sig == sign(pve, &format!("{time}:{user}"))
}

/// The sender of a request with these headers.
///
/// # Errors
/// `401` with the server's reason.
pub fn identify(pve: &Pve, headers: &http::HeaderMap, write: bool, now_s: u64) -> Result<Who, ApiError> {
    let header = |n: &str| headers.get(n).and_then(|v| v.to_str().ok());
    let none = || ApiError::unauthorized("No ticket");
    let bad = || ApiError::unauthorized("Authentication failed!");
    if let Some(auth) = header("authorization") {
        let auth = unescape(auth.trim(), false);
        if let Some(token) = auth.strip_prefix("PVEAPIToken").map(|t| t.trim_start_matches(['=', ' '])) {
            let (id, secret) = token.rsplit_once('=').or_else(|| token.rsplit_once(':')).ok_or_else(bad)?;
            let (user, name) = id.split_once('!').ok_or_else(bad)?;
            let u = pve.access.users.get(user).filter(|u| u.enable).ok_or_else(bad)?;
            let t = u.tokens.get(name).ok_or_else(bad)?;
            if t.secret != secret || (t.expire != 0 && t.expire < now_s) {
                return Err(bad());
            }
            return Ok(Who { user: user.to_owned(), token: Some(name.to_owned()) });
        }
    }
    let cookies = header("cookie").unwrap_or_default();
    let cookie = cookies.split(';').find_map(|c| c.trim().strip_prefix("PVEAuthCookie=")).ok_or_else(none)?;
    let ticket = unescape(cookie, false);
    let user = read_ticket(pve, &ticket, now_s).ok_or_else(bad)?;
    if write && !header("csrfpreventiontoken").is_some_and(|t| csrf_ok(pve, &user, t, now_s)) {
        return Err(ApiError::unauthorized("Permission denied - invalid csrf token"));
    }
    Ok(Who { user, token: None })
}
