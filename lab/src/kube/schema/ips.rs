//! Addresses and ranges as the API server reads them: strictly, and in one form only where it says so. Grade: source
//! (the IP validation of apimachinery).
use std::net::{IpAddr, Ipv4Addr};

use crate::kube::store::Cause;

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address whose numbers may begin with zeros.
fn loose(text: &str) -> Option<IpAddr> {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |p: &&str| {
        (1..=20).contains(&p.len()).then(|| p.trim_start_matches('0')).and_then(|p| match p {
            "" => Some(0),
            p => p.parse::<u8>().ok(),
        })
    };
    let bytes: Vec<u8> = parts.iter().filter_map(number).collect();
    let all_digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match <[u8; 4]>::try_from(bytes) {
        Ok(b) if all_digits && parts.len() == 4 => Some(Ipv4Addr::from(b).into()),
        _ => None,
    }
}

fn mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v) if v.to_ipv4_mapped().is_some())
}

/// What is wrong with an address; `one_form`: whether it has to be written as the server would.
pub(super) fn address(text: &str, one_form: bool) -> Vec<String> {
    let Some(ip) = text.parse::<IpAddr>().ok() else {
        let why = if loose(text).is_some() { "must not have leading 0s" } else { IP };
        return vec![why.to_owned()];
    };
    if mapped(ip) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    let form = ip.to_string();
    if one_form && form != text { vec![format!("must be in canonical form (\"{form}\")")] } else { Vec::new() }
}

/// The range of a text, its bits beyond the prefix left out.
fn masked(ip: IpAddr, n: u32) -> IpAddr {
    match ip {
        IpAddr::V4(v) => Ipv4Addr::from_bits(v.to_bits() & u32::MAX.checked_shl(32 - n).unwrap_or(0)).into(),
        IpAddr::V6(v) => {
            std::net::Ipv6Addr::from_bits(v.to_bits() & u128::MAX.checked_shl(128 - n).unwrap_or(0)).into()
        }
    }
}

/// What is wrong with a range.
pub(super) fn range(text: &str, one_form: bool) -> Vec<String> {
    let invalid = || vec![CIDR.to_owned()];
    let Some((ip, n)) = text.split_once('/') else { return invalid() };
    let strict = ip.parse::<IpAddr>().ok();
    let (Some(at), Ok(bits)) = (strict.or_else(|| loose(ip)), n.parse::<u32>()) else { return invalid() };
    if bits > if at.is_ipv4() { 32 } else { 128 } {
        return invalid();
    }
    let mut out = Vec::new();
    if strict.is_none() || bits.to_string() != n {
        out.push("must not have leading 0s in IP or prefix length".to_owned());
    } else if mapped(at) {
        out.push("must not have an IPv4-mapped IPv6 address".to_owned());
    } else if masked(at, bits) != at {
        out.push("must not have bits set beyond the prefix length".to_owned());
    }
    let form = format!("{}/{bits}", masked(at, bits));
    if one_form && out.is_empty() && form != text {
        out.push(format!("must be in canonical form (\"{form}\")"));
    }
    out
}

/// Whether a text is an address of the sixth version.
#[must_use]
pub fn is_six(text: &str) -> bool {
    text.contains(':')
}

/// Checks an address in any form.
pub(super) fn sound(at: &str, text: &str, out: &mut Vec<Cause>) {
    out.extend(address(text, false).iter().map(|why| Cause::invalid(at, &text.into(), why)));
}

/// Checks a range in any form.
pub(super) fn sound_range(at: &str, text: &str, out: &mut Vec<Cause>) {
    out.extend(range(text, false).iter().map(|why| Cause::invalid(at, &text.into(), why)));
}

/// Addresses that no endpoint has.
pub(super) fn reachable(at: &str, text: &str, ip: IpAddr, out: &mut Vec<Cause>) {
    let mut say = |why: &str| out.push(Cause::invalid(at, &text.into(), why));
    if ip.is_unspecified() {
        say(&format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        say("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let link = match ip {
        IpAddr::V4(v) => v.is_link_local(),
        IpAddr::V6(v) => v.segments()[0] & 0xffc0 == 0xfe80,
    };
    if link {
        say("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    let local = match ip {
        IpAddr::V4(v) => v.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v) => v.segments()[0] == 0xff02,
    };
    if local {
        say("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_are_read_strictly() {
        for (text, why) in [
            ("10.0.0.1", ""),
            ("2001:db8::1", ""),
            ("x", IP),
            ("1.2.3", IP),
            ("010.0.0.1", "must not have leading 0s"),
            ("2001:DB8::2", "must be in canonical form (\"2001:db8::2\")"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
        ] {
            assert_eq!(address(text, true).join(""), why, "{text}");
        }
        for (text, why) in [
            ("10.0.0.0/8", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/33", CIDR),
            ("::/0", ""),
            ("FD00::/112", "must be in canonical form (\"fd00::/112\")"),
            ("::ffff:1.2.3.0/120", "must not have an IPv4-mapped IPv6 address"),
        ] {
            assert_eq!(range(text, true).join(""), why, "{text}");
        }
    }
}
