//! `exportfs`, `showmount`, `nfsstat`.
use super::{Call, Program, now, of};
use crate::guest::nfs;
use crate::guest::query;

pub(super) const PROGRAMS: &[Program] = &[
    of("nfs-kernel-server", now("/usr/sbin/exportfs", exportfs)),
    of("nfs-common", now("/usr/sbin/showmount", showmount)),
];

fn exportfs(c: &mut Call) -> i32 {
    if !c.must_be_root("exportfs: could not open /var/lib/nfs/.etab.lock for locking: errno 13 (Permission denied)") {
        return 1;
    }
    let flags = c.letters();
    let m = c.m.clone();
    if flags.contains('u') && flags.contains('a') {
        c.guest(|g| g.exports.clear());
        return 0;
    }
    if flags.contains('r') || flags.contains('a') {
        let (exports, errors) = nfs::read(&m);
        for e in &errors {
            c.complain(e);
        }
        if flags.contains('v') {
            for e in &exports {
                c.line(&format!("exporting {}:{}", e.client, e.path));
            }
        }
        c.guest(|g| g.exports = exports);
        return i32::from(!errors.is_empty());
    }
    if c.operands(&["-o"]).is_empty() {
        let exports = c.guest(|g| g.exports.clone()).unwrap_or_default();
        for e in exports {
            let client = if e.client == "*" { "<world>".to_owned() } else { e.client };
            if flags.contains('s') {
                c.line(&format!("{} {client}({})", e.path, e.options));
            } else if flags.contains('v') {
                // exportfs breaks the line when the path is long.
                if e.path.len() > 14 {
                    c.line(&format!("{}\n\t\t{client}({})", e.path, e.options))
                } else {
                    c.line(&format!("{:<15}\t{client}({})", e.path, e.options))
                }
            } else {
                c.line(&format!("{:<15}\t{client}", e.path));
            }
        }
        return 0;
    }
    c.unsimulated("(single exports)")
}

fn showmount(c: &mut Call) -> i32 {
    let host = c.operands(&[]).first().cloned().unwrap_or_else(|| "127.0.0.1".into());
    let m = c.m.clone();
    let text = c.world(|w| {
        let ip = query::name_to_ip(w, &m, &host).unwrap_or_default();
        if let Some(dirs) = w.lan.shares.get(&ip) {
            let list: String = dirs.iter().map(|d| format!("{d} *\n")).collect();
            return Ok(format!("Export list for {host}:\n{list}"));
        }
        let vmid = if ip.starts_with("127.") { Some(m.vmid) } else { query::by_ip(w, &ip) };
        let vmid = vmid.ok_or_else(|| format!("clnt_create: RPC: Port mapper failure - Timed out ({host})"))?;
        let on = |u: &str| crate::guest::units::state(w, vmid, u).0 == "active";
        if !on("rpcbind.service") || !on("nfs-server.service") {
            return Err("clnt_create: RPC: Program not registered".to_owned());
        }
        let list: String = w
            .guests
            .get(&vmid)
            .map(|g| g.exports.iter().map(|e| format!("{} {}\n", e.path, e.client)).collect())
            .unwrap_or_default();
        Ok(format!("Export list for {host}:\n{list}"))
    });
    match text {
        Ok(t) => {
            c.print(&t);
            0
        }
        Err(e) => c.fail(1, &e),
    }
}
