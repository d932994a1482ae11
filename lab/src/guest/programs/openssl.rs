//! `openssl`: looking at certificates, digests and random bytes.
use futures::future::BoxFuture;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

use super::date::show;
use super::stat::reason;
use super::{Call, Program, later};
use crate::kube::text::{b64, hex, sha256_of};

pub(super) const PROGRAMS: &[Program] = &[later("/usr/bin/openssl", openssl)];

/// What `openssl version` says of Debian 12.
const VERSION: &str = "OpenSSL 3.0.17 1 Jul 2025 (Library: OpenSSL 3.0.17 1 Jul 2025)";

fn openssl(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let verb = if c.args.is_empty() { String::new() } else { c.args.remove(0) };
        match verb.as_str() {
            "version" | "--version" => {
                c.line(VERSION);
                0
            }
            "x509" => match input(c).await {
                Ok(bytes) => x509(c, &bytes),
                Err(code) => code,
            },
            "rand" => random(c),
            "dgst" | "sha256" => digest(c, verb == "sha256").await,
            "" | "help" | "--help" => {
                c.fail(0, "help:\n\nStandard commands\ndgst              rand              version           x509")
            }
            other => c.unsimulated(other),
        }
    })
}

/// What `-in` names, or standard input.
async fn input(c: &mut Call) -> Result<Vec<u8>, i32> {
    let Some(name) = c.value(&["-in"]) else { return Ok(c.read_all().await) };
    let path = c.path(&name);
    match c.m.files.read(&c.who.clone(), &path) {
        Ok(b) => Ok(b.as_ref().clone()),
        Err(e) => {
            let why = reason(&e);
            let text = format!("Could not open file or uri for loading certificate from {name}\n{why}");
            Err(c.fail(1, &text))
        }
    }
}

/// `O = system:masters, CN = system:admin`.
fn name(n: &X509Name<'_>) -> String {
    let short = |oid: String| match oid.as_str() {
        "2.5.4.3" => "CN".to_owned(),
        "2.5.4.6" => "C".to_owned(),
        "2.5.4.7" => "L".to_owned(),
        "2.5.4.8" => "ST".to_owned(),
        "2.5.4.10" => "O".to_owned(),
        "2.5.4.11" => "OU".to_owned(),
        _ => oid,
    };
    let parts = n
        .iter_attributes()
        .map(|a| format!("{} = {}", short(a.attr_type().to_id_string()), a.as_str().unwrap_or_default()));
    parts.collect::<Vec<_>>().join(", ")
}

fn moment(secs: i64) -> String {
    show("%b %e %T %Y GMT", u64::try_from(secs).unwrap_or_default(), 0)
}

fn pairs(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}

fn alternatives(cert: &X509Certificate<'_>) -> Option<String> {
    let found = cert.subject_alternative_name().ok()??;
    let word = |g: &GeneralName<'_>| match g {
        GeneralName::DNSName(d) => format!("DNS:{d}"),
        GeneralName::IPAddress(b) => match <[u8; 4]>::try_from(*b) {
            Ok(four) => format!("IP Address:{}", std::net::Ipv4Addr::from(four)),
            Err(_) => {
                let six = <[u8; 16]>::try_from(*b).map(std::net::Ipv6Addr::from);
                // OpenSSL writes every group, without leading zeroes.
                let groups = six.map(|a| a.segments().map(|s| format!("{s:X}")).join(":"));
                format!("IP Address:{}", groups.unwrap_or_default())
            }
        },
        other => format!("{other}"),
    };
    Some(found.value.general_names.iter().map(word).collect::<Vec<_>>().join(", "))
}

/// `openssl x509`: what the options ask of a certificate, in their order.
fn x509(c: &mut Call, bytes: &[u8]) -> i32 {
    let der = match x509_parser::pem::parse_x509_pem(bytes) {
        Ok((_, pem)) => pem.contents,
        Err(_) => return c.fail(1, "Could not find certificate from <stdin>\nUnable to load certificate"),
    };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else {
        return c.fail(1, "Unable to load certificate");
    };
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    let mut code = 0;
    let mut args = c.args.clone().into_iter();
    while let Some(a) = args.next() {
        match a.as_str() {
            "-in" | "-inform" => drop(args.next()),
            "-noout" | "-sha256" | "-sha1" => {}
            "-subject" => c.line(&format!("subject={}", name(cert.subject()))),
            "-issuer" => c.line(&format!("issuer={}", name(cert.issuer()))),
            "-startdate" => c.line(&format!("notBefore={}", moment(from))),
            "-enddate" => c.line(&format!("notAfter={}", moment(to))),
            "-dates" => c.line(&format!("notBefore={}\nnotAfter={}", moment(from), moment(to))),
            "-serial" => c.line(&format!("serial={}", pairs(cert.raw_serial()).replace(':', ""))),
            "-fingerprint" => {
                let long = c.has(&["-sha256"]);
                let (word, sum) = if long {
                    ("sha256", Sha256::digest(&der).to_vec())
                } else {
                    ("SHA1", Sha1::digest(&der).to_vec())
                };
                c.line(&format!("{word} Fingerprint={}", pairs(&sum)));
            }
            "-checkend" => {
                let secs: i64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                let now = (c.m.lab.clock().now_ms() / 1000).cast_signed();
                let ends = to <= now + secs;
                c.line(if ends { "Certificate will expire" } else { "Certificate will not expire" });
                code = i32::from(ends);
            }
            "-ext" => match (args.next().as_deref(), alternatives(&cert)) {
                (Some("subjectAltName"), Some(names)) => {
                    c.line(&format!("X509v3 Subject Alternative Name: \n    {names}"));
                }
                (Some("subjectAltName"), None) => c.complain("No extensions matches"),
                (other, _) => return c.unsimulated(&format!("x509 -ext {}", other.unwrap_or_default())),
            },
            other => return c.unsimulated(&format!("x509 {other}")),
        }
    }
    if !c.has(&["-noout"]) {
        c.bytes(bytes);
    }
    code
}

fn random(c: &mut Call) -> i32 {
    let Some(n) = c.operands(&["-out"]).pop().and_then(|n| n.parse::<usize>().ok()).filter(|n| *n <= 1 << 20) else {
        return c.fail(1, "rand: Use -help for summary.");
    };
    let bytes: Vec<u8> = (0..n).map(|_| rand::random()).collect();
    if c.has(&["-hex"]) {
        c.line(&hex(&bytes));
    } else if c.has(&["-base64"]) {
        let text = b64(&bytes);
        for line in text.as_bytes().chunks(64) {
            c.line(&String::from_utf8_lossy(line));
        }
    } else {
        c.bytes(&bytes);
    }
    0
}

async fn digest(c: &mut Call, is_sha256: bool) -> i32 {
    if !is_sha256 && !c.args.is_empty() && c.args.iter().any(|a| a.starts_with('-') && a != "-sha256" && a != "-r") {
        let what = c.args.join(" ");
        return c.unsimulated(&format!("dgst {what}"));
    }
    let files = c.operands(&[]);
    if files.is_empty() {
        let all = c.read_all().await;
        c.line(&format!("SHA2-256(stdin)= {}", sha256_of(&all)));
        return 0;
    }
    let mut code = 0;
    for f in files {
        let path = c.path(&f);
        match c.m.files.read(&c.who.clone(), &path) {
            Ok(b) => c.line(&format!("SHA2-256({f})= {}", sha256_of(&b))),
            Err(e) => {
                let text = format!("Can't open \"{f}\" for reading, {}", reason(&e));
                code = c.fail(1, &text);
            }
        }
    }
    code
}
