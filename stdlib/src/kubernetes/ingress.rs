//! A request to a host name the way a browser comes in: TLS to the ingress, the name in it, its certificate's end.
//!
//! It is sent by a machine of the site, so that no DNS entry and no route of this computer is needed.
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::ssh::{Host, quote};

/// What the ingress answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
    /// Whom the certificate names (`CN=…`); empty when curl did not say it.
    pub subject: String,
    /// Days that the certificate is still valid, by the clock of the machine that asked; `None` when curl named no end.
    pub days: Option<i64>,
}

/// Seconds since 1970 of `Feb  3 00:00:00 2031 GMT`.
fn seconds(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_whitespace();
    let month = MONTHS.find(words.next()?)? / 3 + 1;
    let day: u32 = words.next()?.parse().ok()?;
    let (time, year) = (words.next()?, words.next()?);
    super::epoch_seconds(&format!("{year}-{month:02}-{day:02}T{time}Z"))
}

/// Reads what curl said of the connection (`-v`), with the machine's time in its last line.
fn days(said: &str) -> Option<i64> {
    let end = said.lines().find_map(|l| l.trim_start_matches('*').trim().strip_prefix("expire date: "))?;
    let now: i64 = said.lines().last()?.trim().parse().ok()?;
    Some((seconds(end)? - now).div_euclid(86_400))
}

/// The subject of the certificate, in curl's words.
fn subject(said: &str) -> String {
    let line = said.lines().find_map(|l| l.trim_start_matches('*').trim().strip_prefix("subject: "));
    line.unwrap_or_default().trim().to_owned()
}

/// GET `url` (`https://name/path`) at `address`, from `host`.
///
/// # Errors
/// `invalid` for another sort of URL; `unreachable` with curl's words.
pub async fn request(ctx: &Ctx, host: &Host, address: &str, url: &str) -> OpResult<Answer> {
    let name = url.strip_prefix("https://").and_then(|r| r.split('/').next()).filter(|n| !n.is_empty());
    let Some(name) = name else {
        return Err(OpError::invalid(format!("`{url}` is no URL of an ingress"))
            .hint("for example `https://rancher.lab.example/ping`"));
    };
    let resolve = format!("{name}:443:{address}");
    let script = format!(
        "curl -sSkv -m 20 -w '\\n%{{http_code}}' --resolve {} {}; code=$?; date +%s >&2; exit $code",
        quote(&resolve),
        quote(url)
    );
    let op = Op::read("kubernetes", "request_ingress", url);
    ctx.run_op(op, |s| async move {
        let out = host.exec_raw(s.ctx(), &script, b"").await.map_err(|e| e.on(host.name()))?;
        if out.code != 0 {
            let why = out.stderr.lines().find(|l| l.starts_with("curl: ")).unwrap_or_default();
            return Err(OpError::unreachable(format!("nothing answers for {name} at {address}")).on(url).because(why));
        }
        let (body, status) = out.stdout.trim_end().rsplit_once('\n').unwrap_or(("", out.stdout.trim()));
        let status = status.parse().unwrap_or(0);
        Ok(Answer { status, body: body.to_owned(), subject: subject(&out.stderr), days: days(&out.stderr) })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_certificate_is_read_from_curls_words() {
        let said = "*   Trying 10.0.0.11:443...\n* Server certificate:\n*  start date: Nov  5 00:00:00 2026 GMT\n\
                    *  expire date: Feb  3 00:00:00 2027 GMT\n* Connection #0 left intact\n1794528000\n";
        assert_eq!(subject("* Server certificate:\n*  subject: CN=TRAEFIK DEFAULT CERT\n"), "CN=TRAEFIK DEFAULT CERT");
        // 1794528000 is 2026-11-13
        assert_eq!(days(said), Some(82));
        assert_eq!(days("* no TLS\n1794528000\n"), None);
    }
}
