//! NFS server of a guest: the exports table, and who may mount what.
use super::fs::Who;
use super::live::Machine;
use super::state::Export;
use crate::world::World;

/// Where an NFS server of version 4 listens.
const PORT: u16 = 2049;

/// The default options with the given ones over them, in the order `exportfs -v` prints.
#[must_use]
pub fn full_options(given: &str) -> String {
    let on = |a: &str| given.split(',').any(|o| o.trim() == a);
    let value = |k: &str| {
        given.split(',').find_map(|o| o.trim().strip_prefix(k).and_then(|r| r.strip_prefix('='))).map(str::to_owned)
    };
    let mut out = vec![if on("async") { "async" } else { "sync" }.to_owned(), "wdelay".into(), "hide".into()];
    out.push(if on("subtree_check") { "subtree_check" } else { "no_subtree_check" }.into());
    if let Some(f) = value("fsid") {
        out.push(format!("fsid={f}"));
    }
    for k in ["anonuid", "anongid"] {
        if let Some(v) = value(k) {
            out.push(format!("{k}={v}"));
        }
    }
    out.push(format!("sec={}", value("sec").unwrap_or_else(|| "sys".into())));
    out.push(if on("rw") { "rw" } else { "ro" }.into());
    out.push(if on("insecure") { "insecure" } else { "secure" }.into());
    out.push(if on("no_root_squash") { "no_root_squash" } else { "root_squash" }.into());
    out.push(if on("all_squash") { "all_squash" } else { "no_all_squash" }.into());
    out.join(",")
}

/// Reads `/etc/exports` and `/etc/exports.d`. The errors are what exportfs prints.
#[must_use]
pub fn read(m: &Machine) -> (Vec<Export>, Vec<String>) {
    let mut files = vec!["/etc/exports".to_owned()];
    for (name, _) in m.files.list(&Who::root(), "/etc/exports.d").unwrap_or_default() {
        if name.ends_with(".exports") && !name.starts_with('.') {
            files.push(format!("/etc/exports.d/{name}"));
        }
    }
    let (mut exports, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        let text = m.files.text(&file).replace("\\\n", " ");
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut words = super::k3s::split_words(line).into_iter();
            let Some(path) = words.next() else { continue };
            if !path.starts_with('/') {
                errors.push(format!("exportfs: {file}:{}: syntax error: bad export path {path}", i + 1));
                continue;
            }
            if !m.files.exists(&path) {
                errors.push(format!("exportfs: Failed to stat {path}: No such file or directory"));
                continue;
            }
            let mut any = false;
            for word in words.filter(|w| !w.starts_with('-')) {
                any = true;
                let (client, options) = match word.split_once('(') {
                    Some((c, o)) => match o.strip_suffix(')') {
                        Some(o) => (c.to_owned(), o.to_owned()),
                        None => {
                            errors.push(format!("exportfs: {file}:{}: syntax error: bad option list", i + 1));
                            continue;
                        }
                    },
                    None => (word, String::new()),
                };
                let client = if client.is_empty() { "*".to_owned() } else { client };
                exports.push(Export { path: path.clone(), client, options: full_options(&options) });
            }
            if !any {
                exports.push(Export { path, client: "*".into(), options: full_options("") });
            }
        }
    }
    (exports, errors)
}

/// The NFS server has started: the kernel gets the table.
pub fn server_started(w: &mut World, m: &Machine) {
    let (exports, _) = read(m);
    if let Some(g) = w.guests.get_mut(&m.vmid) {
        g.exports = exports;
        super::hw::load_module(g, "nfsd");
    }
}

/// Whether an address belongs to a client word: address, network, `*`.
#[must_use]
pub fn matches(client: &str, ip: &str) -> bool {
    let number = |t: &str| t.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
    match client.split_once('/') {
        _ if client == "*" || client == ip => true,
        Some((net, prefix)) => {
            let bits = prefix.parse::<u32>().ok().or_else(|| number(prefix).map(u32::count_ones));
            let (Some(net), Some(ip), Some(bits)) = (number(net), number(ip), bits) else { return false };
            bits == 0 || (bits <= 32 && (net ^ ip) >> (32 - bits) == 0)
        }
        None => client.ends_with('*') && ip.starts_with(client.trim_end_matches('*')),
    }
}

/// The export that lets `client` mount `path` from the guest `server`.
///
/// # Errors
/// The reason as `mount.nfs4` prints it.
pub fn allowed(w: &World, server: u32, path: &str, client: &str) -> Result<Export, String> {
    let Some(g) = w.guests.get(&server) else { return Err("Connection timed out".into()) };
    if super::firewall::drops(g, super::firewall::Way::In, PORT) {
        return Err("Connection timed out".into());
    }
    if super::units::state(w, server, "nfs-server.service").0 != "active" {
        return Err("Connection refused".into());
    }
    let inside = |e: &&Export| super::fs::tree::is_below(path, e.path.trim_end_matches('/'));
    let mut known = g.exports.iter().filter(inside).peekable();
    if known.peek().is_none() {
        return Err("No such file or directory".into());
    }
    known.find(|e| matches(&e.client, client)).cloned().ok_or_else(|| "access denied by server".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_matched_by_address_and_network() {
        assert!(matches("10.0.0.0/24", "10.0.0.21"));
        assert!(matches("10.0.0.0/255.255.255.0", "10.0.0.21"));
        assert!(!matches("10.0.1.0/24", "10.0.0.21"));
        assert!(matches("10.0.0.21", "10.0.0.21"));
        assert!(matches("*", "1.2.3.4"));
        assert!(full_options("rw,no_root_squash").contains("rw,secure,no_root_squash"));
    }
}
