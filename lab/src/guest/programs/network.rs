//! The network: `ip`, `ss`, `ping`, `resolvectl`, and names.
use std::collections::HashMap;

use futures::future::BoxFuture;
use serde_json::json;

use super::{Call, Program, later, now};
use crate::guest::query;
use crate::guest::state::Guest;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/ip", ip),
    now("/usr/bin/ss", ss),
    later("/usr/bin/ping", ping),
    now("/usr/bin/resolvectl", resolvectl),
    now("/usr/sbin/netplan", |c| {
        if c.args.first().is_some_and(|a| a == "apply" || a == "generate") { 0 } else { c.unsimulated("") }
    }),
    now("/usr/bin/networkctl", |c| c.unsimulated("")),
    now("/usr/bin/ssh", |c| c.unsimulated("(from a guest)")),
    now("/usr/bin/ssh-keygen", ssh_keygen),
    now("/usr/bin/ssh-keyscan", |c| c.unsimulated("")),
    now("/usr/sbin/sshd", |c| if c.has(&["-t"]) { 0 } else { c.unsimulated("") }),
];

/// Address of a name as this guest resolves it.
pub(super) fn lookup(c: &Call, name: &str) -> Option<String> {
    let m = c.m.clone();
    c.world(|w| query::name_to_ip(w, &m, name))
}

/// The gateway and the machines of the same network that run.
fn neighbours(c: &mut Call, g: &Guest) -> i32 {
    let Some(net) = &g.net else { return 0 };
    let mut all: Vec<(String, String)> = c.world(|w| {
        let others = w.guests.values().filter(|o| o.spec.vmid != g.spec.vmid);
        let row = |o: &Guest| Some((o.net.as_ref()?.ip.clone(), o.spec.nics.first()?.mac.to_lowercase()));
        others.filter_map(row).collect()
    });
    all.extend(net.gateway.clone().map(|gw| (gw, "bc:24:11:00:00:fe".to_owned())));
    all.sort();
    for (ip, mac) in all {
        c.line(&format!("{ip} dev eth0 lladdr {mac} REACHABLE"));
    }
    0
}

fn ip(c: &mut Call) -> i32 {
    let flags: Vec<String> = c.args.iter().take_while(|a| a.starts_with('-')).cloned().collect();
    let words: Vec<String> = c.args.iter().skip(flags.len()).cloned().collect();
    let as_json = flags.iter().any(|f| f == "-j" || f == "-json" || f == "--json");
    let brief = flags.iter().any(|f| f == "-br" || f == "-brief");
    let one = flags.iter().any(|f| f == "-o" || f == "-oneline");
    let Some(g) = c.guest(|g| g.clone()) else { return 1 };
    let what = words.first().map_or("addr", String::as_str);
    if words.get(1).is_some_and(|v| matches!(v.as_str(), "add" | "del" | "set" | "flush" | "replace" | "change")) {
        return c.unsimulated(&words.join(" "));
    }
    if "route".starts_with(what) && what.starts_with('r') && what != "rule" {
        return route(c, &g, &words, as_json);
    }
    if "neighbour".starts_with(what) || what == "neighbor" {
        return neighbours(c, &g);
    }
    let link = "link".starts_with(what);
    if !link && !"address".starts_with(what) {
        return c.unsimulated(&words.join(" "));
    }
    let skip = ["show", "dev", "list", "ls", "up", "scope", "global"];
    let wanted = words.iter().skip(1).find(|w| !skip.contains(&w.as_str())).cloned();
    let mut ifaces = vec![("lo".to_owned(), "00:00:00:00:00:00".to_owned(), Some(("127.0.0.1".to_owned(), 8u8)))];
    for (i, n) in g.spec.nics.iter().enumerate() {
        let at = g.net.as_ref().filter(|_| i == 0).map(|n| (n.ip.clone(), n.prefix));
        ifaces.push((format!("eth{i}"), n.mac.to_lowercase(), at));
    }
    if words.iter().any(|w| w == "global") {
        ifaces.retain(|i| i.0 != "lo");
    }
    if let Some(w) = &wanted {
        ifaces.retain(|i| i.0 == *w);
        if ifaces.is_empty() {
            let text = format!("Device \"{w}\" does not exist.");
            return c.fail(1, &text);
        }
    }
    let index = |n: &str| n.strip_prefix("eth").and_then(|d| d.parse::<usize>().ok()).map_or(1, |d| d + 2);
    if as_json {
        let list: Vec<_> = ifaces.iter().map(|(n, mac, at)| {
            let info: Vec<_> = at.iter().map(|(a, p)| json!({"family": "inet", "local": a, "prefixlen": p, "scope": if n == "lo" { "host" } else { "global" }, "label": n})).collect();
            json!({"ifindex": index(n), "ifname": n, "flags": ["UP", "LOWER_UP"], "mtu": if n == "lo" { 65536 } else { 1500 }, "operstate": if n == "lo" { "UNKNOWN" } else { "UP" }, "address": mac, "addr_info": info})
        }).collect();
        c.line(&json!(list).to_string());
        return 0;
    }
    for (n, mac, at) in &ifaces {
        let state = if n == "lo" { "UNKNOWN" } else { "UP" };
        let addr = at.as_ref().map(|(a, p)| format!("{a}/{p}")).unwrap_or_default();
        if brief {
            let last = if link { mac } else { &addr };
            c.line(&format!("{n:<16} {state:<14} {last}"));
        } else if one && !link {
            if !addr.is_empty() {
                c.line(&format!(
                    "{}: {n}    inet {addr} scope global {n}\\       valid_lft forever preferred_lft forever",
                    index(n)
                ));
            }
        } else {
            let (flags, kind) = if n == "lo" {
                ("LOOPBACK,UP,LOWER_UP", "loopback")
            } else {
                ("BROADCAST,MULTICAST,UP,LOWER_UP", "ether")
            };
            c.line(&format!("{}: {n}: <{flags}> mtu {} state {state} group default qlen 1000\n    link/{kind} {mac} brd ff:ff:ff:ff:ff:ff", index(n), if n == "lo" { 65536 } else { 1500 }));
            if !link && !addr.is_empty() {
                c.line(&format!(
                    "    inet {addr} scope {} {n}\n       valid_lft forever preferred_lft forever",
                    if n == "lo" { "host" } else { "global" }
                ));
            }
        }
    }
    0
}

fn route(c: &mut Call, g: &crate::guest::state::Guest, words: &[String], as_json: bool) -> i32 {
    let Some(net) = &g.net else { return 0 };
    let number = net.ip.parse::<std::net::Ipv4Addr>().map(u32::from).unwrap_or_default();
    let mask = if net.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(net.prefix.min(32))) };
    let base = std::net::Ipv4Addr::from(number & mask);
    if words.get(1).is_some_and(|w| w == "get") {
        let to = words.get(2).cloned().unwrap_or_default();
        let local = to.parse::<std::net::Ipv4Addr>().is_ok_and(|a| u32::from(a) & mask == number & mask);
        let via = net.gateway.clone().filter(|_| !local).map(|v| format!("via {v} ")).unwrap_or_default();
        c.line(&format!("{to} {via}dev eth0 src {} uid {}\n    cache", net.ip, c.who.uid));
        return 0;
    }
    let only_default = words.iter().any(|w| w == "default");
    if as_json {
        let mut list = Vec::new();
        if let Some(v) = &net.gateway {
            list.push(json!({"dst": "default", "gateway": v, "dev": "eth0", "protocol": "static", "flags": []}));
        }
        if !only_default {
            list.push(json!({"dst": format!("{base}/{}", net.prefix), "dev": "eth0", "protocol": "kernel", "scope": "link", "prefsrc": net.ip, "flags": []}));
        }
        c.line(&json!(list).to_string());
        return 0;
    }
    if let Some(v) = &net.gateway {
        c.line(&format!("default via {v} dev eth0 proto static"));
    }
    if !only_default {
        c.line(&format!("{base}/{} dev eth0 proto kernel scope link src {}", net.prefix, net.ip));
    }
    0
}

/// A socket that waits: protocol, address, port, the unit and the program behind it (none: the kernel).
type Socket = (&'static str, String, u16, &'static str, &'static str);

/// Sockets that a guest listens on, by its services.
fn sockets(c: &Call) -> Vec<Socket> {
    let (vmid, own) = (c.m.vmid, c.guest(|g| g.net.as_ref().map(|n| n.ip.clone())).flatten().unwrap_or_default());
    c.world(|w| {
        let on = |u: &str| crate::guest::units::state(w, vmid, u).0 == "active";
        let any = || "0.0.0.0".to_owned();
        let here = || "127.0.0.1".to_owned();
        let mut all: Vec<Socket> = vec![("tcp", any(), 22, "ssh.service", "sshd")];
        if on("systemd-resolved.service") {
            let unit = "systemd-resolved.service";
            all.push(("udp", "127.0.0.53%lo".to_owned(), 53, unit, "systemd-resolve"));
            all.push(("tcp", "127.0.0.53%lo".to_owned(), 53, unit, "systemd-resolve"));
        }
        if on("chrony.service") {
            all.push(("udp", here(), 323, "chrony.service", "chronyd"));
        }
        if on("nfs-server.service") {
            all.push(("tcp", any(), 2049, "", ""));
        }
        if on("rpcbind.service") {
            all.push(("tcp", any(), 111, "rpcbind.service", "rpcbind"));
            all.push(("udp", any(), 111, "rpcbind.service", "rpcbind"));
        }
        for (unit, program, server) in [("k3s.service", "k3s-server", true), ("k3s-agent.service", "k3s-agent", false)]
        {
            if !on(unit) {
                continue;
            }
            let any_family = || "*".to_owned();
            let mut tcp = vec![(here(), 10248), (any_family(), 10250), (here(), 6444), (here(), 10010)];
            if server {
                tcp.extend([(any_family(), 6443), (here(), 10257), (here(), 10259)]);
                tcp.extend([(own.clone(), 2379), (own.clone(), 2380), (here(), 2379), (here(), 2380), (here(), 2381)]);
            }
            all.extend(tcp.into_iter().map(|(at, port)| ("tcp", at, port, unit, program)));
            all.push(("udp", any(), 8472, "", ""));
        }
        if on("prometheus-node-exporter.service") {
            all.push(("tcp", "*".to_owned(), 9100, "prometheus-node-exporter.service", "prometheus-node"));
        }
        all
    })
}

fn ss(c: &mut Call) -> i32 {
    let flags = c.letters();
    let both = flags.contains('t') == flags.contains('u');
    let headed = !flags.contains('H') && !c.has(&["--no-header"]);
    if headed {
        let netid = if both { "Netid " } else { "" };
        let process = if flags.contains('p') { "Process" } else { "" };
        c.line(&format!("{netid}State  Recv-Q Send-Q Local Address:Port  Peer Address:Port{process}"));
    }
    if !flags.contains('l') && !flags.contains('a') {
        return 0;
    }
    let filter = c.operands(&[]).join(" ");
    let port: Option<u16> =
        filter.rsplit(':').next().and_then(|p| p.trim().parse().ok()).filter(|_| filter.contains(':'));
    let pids = c.guest(|g| g.services.iter().map(|(n, s)| (n.clone(), s.pid)).collect::<HashMap<_, _>>());
    let pids = pids.unwrap_or_default();
    for (proto, at, p, unit, name) in sockets(c) {
        if port.is_some_and(|x| x != p) || !(both || flags.contains(&proto[..1])) {
            continue;
        }
        let pid = pids.get(unit).copied().unwrap_or_default();
        let process = if flags.contains('p') && pid > 0 && c.who.uid == 0 {
            format!("users:((\"{name}\",pid={pid},fd=3))")
        } else {
            String::new()
        };
        let netid = if both { format!("{proto:<5} ") } else { String::new() };
        let (state, queue) = if proto == "udp" { ("UNCONN", 0) } else { ("LISTEN", if p == 22 { 128 } else { 4096 }) };
        let peer = if at == "*" { "*" } else { "0.0.0.0" };
        let row = format!("{netid}{state:<6} 0      {queue:<6} {at:>15}:{p:<5} {peer:>12}:*    {process}");
        c.line(row.trim_end());
    }
    0
}

fn ping(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let Some(host) = c.operands(&["-c", "-W", "-w", "-i", "-s", "-I"]).first().cloned() else {
            return c.fail(2, "ping: usage error: Destination address required");
        };
        let count: u64 = c.value(&["-c"]).and_then(|n| n.parse().ok()).unwrap_or(4);
        let Some(ip) = lookup(c, &host) else {
            let text = format!("ping: {host}: Name or service not known");
            return c.fail(2, &text);
        };
        let gateway = c.guest(|g| g.net.as_ref().and_then(|n| n.gateway.clone())).flatten();
        let up = ip.starts_with("127.")
            || gateway.as_deref() == Some(ip.as_str())
            || c.world(|w| query::by_ip(w, &ip).is_some() || w.lan.shares.contains_key(&ip));
        c.pause(count * if up { 1000 } else { 1000 + 1000 }).await;
        c.line(&format!("PING {host} ({ip}) 56(84) bytes of data."));
        for i in 1..=count {
            if up {
                c.line(&format!("64 bytes from {ip}: icmp_seq={i} ttl=64 time=0.312 ms"));
            }
        }
        c.line(&format!(
            "\n--- {host} ping statistics ---\n{count} packets transmitted, {} received, {}% packet loss",
            if up { count } else { 0 },
            if up { 0 } else { 100 }
        ));
        i32::from(!up)
    })
}

fn resolvectl(c: &mut Call) -> i32 {
    match c.args.first().map(String::as_str) {
        Some("query") => {
            let name = c.args.get(1).cloned().unwrap_or_default();
            match lookup(c, &name) {
                Some(ip) => {
                    c.line(&format!("{name}: {ip}"));
                    0
                }
                None => {
                    let text = format!("{name}: resolve call failed: '{name}' not found");
                    c.fail(1, &text)
                }
            }
        }
        Some("flush-caches") => 0,
        _ => {
            let dns = c.guest(|g| g.net.as_ref().map(|n| n.dns.join(" "))).flatten().unwrap_or_default();
            c.line(&format!("Global\nLink 2 (eth0)\n    Current Scopes: DNS\n       DNS Servers: {dns}"));
            0
        }
    }
}

fn ssh_keygen(c: &mut Call) -> i32 {
    if c.has(&["-A"]) {
        let m = c.m.clone();
        c.world(|w| crate::guest::hostkeys::ensure(w, &m, false));
        return 0;
    }
    if c.args.iter().any(|a| a.starts_with("-l")) {
        let file = c.value(&["-f", "-lf"]).unwrap_or_default();
        let path = c.path(&file);
        let text = c.m.files.text(&path);
        let text = if text.starts_with("-----") { c.m.files.text(&format!("{path}.pub")) } else { text };
        return match crate::guest::hostkeys::fingerprint(text.trim()) {
            Some(f) => {
                let comment = text.split_whitespace().nth(2).unwrap_or("no comment").to_owned();
                c.line(&format!("256 {f} {comment} (ED25519)"));
                0
            }
            None => {
                let text = format!("{file} is not a public key file.");
                c.fail(255, &text)
            }
        };
    }
    c.unsimulated("(making keys)")
}
