//! Kubernetes' own values in CEL: addresses, ranges, URLs, semantic versions, named formats, the authorizer. Grade: source
//! (apiserver's CEL libraries).
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::eval::{Out, Trouble, failed, overload};
use super::library::maybe;
use crate::kube::schema::names;

const IP: &str = "\u{0}ip";
const CIDR: &str = "\u{0}cidr";
const URL: &str = "\u{0}url";
const VERSION: &str = "\u{0}semver";
const FORM: &str = "\u{0}format";
/// What may be asked of the authorizer: the rules that the client has, and what is asked so far.
pub const AUTHORIZER: &str = "\u{0}authorizer";

fn kept<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    v.get(key)?.as_str()
}

fn ip(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().ok()?;
    let mapped = matches!(ip, IpAddr::V6(v) if v.to_ipv4_mapped().is_some());
    (!mapped && !text.contains('%')).then_some(ip)
}

fn cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (at, bits) = text.split_once('/')?;
    let (at, bits) = (ip(at)?, bits.parse::<u32>().ok()?);
    (bits <= if at.is_ipv4() { 32 } else { 128 }).then_some((at, bits))
}

fn masked(at: IpAddr, bits: u32) -> IpAddr {
    match at {
        IpAddr::V4(v) => Ipv4Addr::from_bits(v.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into(),
        IpAddr::V6(v) => Ipv6Addr::from_bits(v.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into(),
    }
}

fn within(range: (IpAddr, u32), at: IpAddr) -> bool {
    range.0.is_ipv4() == at.is_ipv4() && masked(at, range.1) == masked(range.0, range.1)
}

/// Major, minor, patch and what is before the release.
type Version = (u64, u64, u64, String);

fn version(text: &str, loose: bool) -> Option<Version> {
    let text = if loose { text.trim_start_matches('v') } else { text };
    let (text, _) = text.split_once('+').unwrap_or((text, ""));
    let (core, before) = text.split_once('-').unwrap_or((text, ""));
    let mut parts: Vec<&str> = core.split('.').collect();
    while loose && parts.len() < 3 {
        parts.push("0");
    }
    let number = |p: &&str| (loose || **p == *"0" || !p.starts_with('0')).then(|| p.parse::<u64>().ok()).flatten();
    match parts.iter().map(number).collect::<Option<Vec<_>>>()?[..] {
        [major, minor, patch] => Some((major, minor, patch, before.to_owned())),
        _ => None,
    }
}

fn compared(a: &Version, b: &Version) -> std::cmp::Ordering {
    let release = |v: &Version| v.3.is_empty();
    (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)).then(release(a).cmp(&release(b))).then_with(|| a.3.cmp(&b.3))
}

/// Scheme, host with port, path, query.
fn url(text: &str) -> Option<(String, String, String, String)> {
    let text = text.split('#').next().unwrap_or_default();
    if text.starts_with('/') {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        return Some((String::new(), String::new(), path.to_owned(), query.to_owned()));
    }
    let (scheme, rest) = text.split_once("://")?;
    if scheme.is_empty() || text.contains(' ') {
        return None;
    }
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (path, query) = rest[at..].split_once('?').unwrap_or((&rest[at..], ""));
    let host = rest[..at].rsplit('@').next().unwrap_or_default();
    Some((scheme.to_owned(), host.to_owned(), path.to_owned(), query.to_owned()))
}

fn judge(form: &str) -> Option<names::Judge> {
    Some(match form {
        "dns1123Label" => names::label,
        "dns1123Subdomain" => names::subdomain,
        "dns1035Label" => names::label_1035,
        "qualifiedName" => names::key,
        "labelValue" => names::value,
        "dns1123LabelPrefix" => |s| names::label(&names::beginning(s)),
        "dns1123SubdomainPrefix" => |s| names::subdomain(&names::beginning(s)),
        "dns1035LabelPrefix" => |s| names::label_1035(&names::beginning(s)),
        "uri" => |s| url(s).map_or_else(|| vec![format!("invalid URL: {s}")], |_| Vec::new()),
        "uuid" => |s| formed("uuid", s, "does not match the UUID format"),
        "byte" => |s| formed("byte", s, "invalid base64"),
        "date" => |s| formed("date", s, "invalid date"),
        "datetime" => |s| formed("date-time", s, "invalid datetime"),
        _ => return None,
    })
}

fn formed(form: &str, text: &str, why: &str) -> Vec<String> {
    if crate::kube::schema::formats::fits(form, text) { Vec::new() } else { vec![why.to_owned()] }
}

/// `ip(...)`, `isCIDR(...)`, `format.dns1123Label()` and the like.
pub(super) fn function(name: &str, args: &[Value]) -> Out {
    let [Value::String(text), more @ ..] = args else {
        return match (name.strip_prefix("format."), args) {
            (Some(form), []) if judge(form).is_some() => Ok(json!({FORM: form})),
            _ => Err(Trouble::Unknown),
        };
    };
    let loose = more == [Value::Bool(true)];
    match name {
        "isIP" => Ok(ip(text).is_some().into()),
        "ip" => ip(text).map(|at| json!({IP: at.to_string()})).ok_or_else(|| {
            failed(format!(
                "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
            ))
        }),
        "ip.isCanonical" => {
            let at = ip(text).ok_or_else(|| failed(format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP")))?;
            Ok((at.to_string() == *text).into())
        }
        "isCIDR" => Ok(cidr(text).is_some().into()),
        "cidr" => cidr(text).map(|(at, bits)| json!({CIDR: format!("{at}/{bits}")})).ok_or_else(|| {
            let why = "network address parse error during conversion from string";
            let go = if text.contains('/') { "unable to parse IP" } else { "no '/'" };
            failed(format!("{why}: {why}: netip.ParsePrefix({text:?}): {go}"))
        }),
        "isURL" => Ok(url(text).is_some().into()),
        "url" => url(text).map(|_| json!({URL: text})).ok_or_else(|| {
            failed(format!("URL parse error during conversion from string: parse {text:?}: invalid URI for request"))
        }),
        "isSemver" => Ok(version(text, loose).is_some().into()),
        "semver" => match version(text, loose) {
            Some(v) => Ok(json!({VERSION: [v.0, v.1, v.2, v.3]})),
            None => Err(failed("No Major.Minor.Patch elements found")),
        },
        "format.named" => Ok(maybe(judge(text).map(|_| json!({FORM: text})).as_ref())),
        _ => Err(Trouble::Unknown),
    }
}

/// What such a value is as a text.
pub(super) fn shown(v: &Value) -> Option<String> {
    kept(v, IP).or_else(|| kept(v, CIDR)).map(str::to_owned)
}

fn of_version(v: &Value) -> Option<Version> {
    let parts = v.get(VERSION)?.as_array()?;
    let n = |i: usize| parts.get(i).and_then(Value::as_u64).unwrap_or(0);
    Some((n(0), n(1), n(2), parts.get(3).and_then(Value::as_str).unwrap_or_default().to_owned()))
}

/// `a.f(b)`; none for another value.
pub(super) fn method(name: &str, own: &Value, args: &[Value]) -> Option<Out> {
    if let Some(at) = kept(own, IP).and_then(ip) {
        return Some(addresses(name, at, args));
    }
    if let Some(range) = kept(own, CIDR).and_then(cidr) {
        return Some(ranges(name, range, args));
    }
    if let Some(parts) = kept(own, URL).and_then(url) {
        return Some(urls(name, &parts, args));
    }
    if let Some(v) = of_version(own) {
        return Some(match (name, args) {
            ("major", []) => Ok(v.0.into()),
            ("minor", []) => Ok(v.1.into()),
            ("patch", []) => Ok(v.2.into()),
            (_, [other]) => {
                let order = compared(&v, &of_version(other)?);
                match name {
                    "isLessThan" => Ok(order.is_lt().into()),
                    "isGreaterThan" => Ok(order.is_gt().into()),
                    "compareTo" => Ok((order as i64).into()),
                    _ => return None,
                }
            }
            _ => return None,
        });
    }
    if let Some(judge) = kept(own, FORM).and_then(judge) {
        let [Value::String(text)] = args else { return None };
        let wrong = judge(text);
        return Some(Ok(maybe((!wrong.is_empty()).then(|| json!(wrong)).as_ref())));
    }
    own.get(AUTHORIZER).map(|asked| authorized(name, asked, args))
}

fn addresses(name: &str, at: IpAddr, args: &[Value]) -> Out {
    let v6 = |f: fn(&Ipv6Addr) -> bool| matches!(at, IpAddr::V6(v) if f(&v));
    let v4 = |f: fn(&Ipv4Addr) -> bool| matches!(at, IpAddr::V4(v) if f(&v));
    match (name, args) {
        ("family", []) => Ok(if at.is_ipv4() { 4 } else { 6 }.into()),
        ("isUnspecified", []) => Ok(at.is_unspecified().into()),
        ("isLoopback", []) => Ok(at.is_loopback().into()),
        ("isLinkLocalMulticast", []) => {
            let local = v4(|v| v.octets()[..3] == [224, 0, 0]) || v6(|v| v.segments()[0] & 0xff0f == 0xff02);
            Ok(local.into())
        }
        ("isLinkLocalUnicast", []) => {
            Ok((v4(Ipv4Addr::is_link_local) || v6(|v| v.segments()[0] & 0xffc0 == 0xfe80)).into())
        }
        ("isGlobalUnicast", []) => {
            let local = v4(Ipv4Addr::is_link_local) || v6(|v| v.segments()[0] & 0xffc0 == 0xfe80);
            let broad = v4(Ipv4Addr::is_broadcast);
            Ok((!local && !broad && !at.is_unspecified() && !at.is_loopback() && !at.is_multicast()).into())
        }
        _ => Err(Trouble::Unknown),
    }
}

fn ranges(name: &str, range: (IpAddr, u32), args: &[Value]) -> Out {
    let text = |v: &Value| v.as_str().map(str::to_owned).or_else(|| shown(v));
    match (name, args) {
        ("ip", []) => Ok(json!({IP: range.0.to_string()})),
        ("prefixLength", []) => Ok(range.1.into()),
        ("masked", []) => Ok(json!({CIDR: format!("{}/{}", masked(range.0, range.1), range.1)})),
        ("containsIP", [v]) => {
            let at = text(v).and_then(|t| ip(&t)).ok_or_else(overload)?;
            Ok(within(range, at).into())
        }
        ("containsCIDR", [v]) => {
            let (at, bits) = text(v).and_then(|t| cidr(&t)).ok_or_else(overload)?;
            Ok((bits >= range.1 && within(range, at)).into())
        }
        _ => Err(Trouble::Unknown),
    }
}

fn urls(name: &str, (scheme, host, path, query): &(String, String, String, String), args: &[Value]) -> Out {
    if !args.is_empty() {
        return Err(Trouble::Unknown);
    }
    let ported = host.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit()));
    match name {
        "getScheme" => Ok(scheme.as_str().into()),
        "getHost" => Ok(host.as_str().into()),
        "getHostname" => Ok(ported.map_or(host.as_str(), |p| p.0).trim_matches(['[', ']']).into()),
        "getPort" => Ok(ported.map_or("", |p| p.1).into()),
        "getEscapedPath" => Ok(path.as_str().into()),
        "getQuery" => {
            let mut out = json!({});
            for part in query.split('&').filter(|p| !p.is_empty()) {
                let (k, v) = part.split_once('=').unwrap_or((part, ""));
                match out[k].as_array_mut() {
                    Some(list) => list.push(v.into()),
                    None => out[k] = json!([v]),
                }
            }
            Ok(out)
        }
        _ => Err(Trouble::Unknown),
    }
}

/// What the client may do: asked of its rules, one word after the other.
fn authorized(name: &str, asked: &Value, args: &[Value]) -> Out {
    let with = |key: &str, v: &Value| {
        let mut next = asked.clone();
        next[key] = v.clone();
        Ok(json!({AUTHORIZER: next}))
    };
    match (name, args) {
        ("path" | "group" | "resource" | "subresource" | "namespace" | "name", [v @ Value::String(_)]) => with(name, v),
        ("fieldSelector" | "labelSelector", [Value::String(_)]) => Ok(json!({AUTHORIZER: asked})),
        // of others than the client nothing is known here
        ("serviceAccount", [Value::String(_), Value::String(_)]) => with("rules", &json!([])),
        ("check", [v @ Value::String(_)]) => with("verb", v),
        ("allowed", []) => Ok(allows(asked).into()),
        ("errored", []) => Ok(false.into()),
        ("reason" | "error", []) => Ok("".into()),
        _ => Err(Trouble::Unknown),
    }
}

fn allows(asked: &Value) -> bool {
    let word = |k: &str| asked[k].as_str().unwrap_or_default();
    let resource = match word("subresource") {
        "" => word("resource").to_owned(),
        sub => format!("{}/{sub}", word("resource")),
    };
    let rules = asked["rules"].as_array().map_or(&[][..], Vec::as_slice);
    rules.iter().any(|rule| {
        let has = |list: &str, want: &str| {
            let all = rule[list].as_array().map_or(&[][..], Vec::as_slice);
            all.iter().filter_map(Value::as_str).any(|x| {
                x == "*"
                    || x == want
                    || x.strip_suffix('*').is_some_and(|start| !start.is_empty() && want.starts_with(start))
            })
        };
        if !has("verbs", word("verb")) {
            return false;
        }
        if !asked["path"].is_null() {
            return has("nonResourceURLs", word("path"));
        }
        let named = rule["resourceNames"].as_array().is_none_or(Vec::is_empty) || has("resourceNames", word("name"));
        has("apiGroups", word("group")) && has("resources", &resource) && named
    })
}
