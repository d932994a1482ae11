//! kubectl, helm and the Python client do real work against a served lab. `GPUHOST_PEER_PARTS=terminals` restricts it to parts
//! whose name has that word.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
mod kube_peers_parts;

use kube_peers_parts::{Served, applying, corners, everyday, helm, kubectl, node, ours, python, terminals};

/// A name and what is done to the lab.
type Part<'a> = (String, Box<dyn FnOnce(&Served) + 'a>);

/// Runs parts one after another on one lab; every one that fails is named.
fn all(lab: &Served, parts: Vec<Part<'_>>) {
    let mut failed = Vec::new();
    let only = std::env::var("GPUHOST_PEER_PARTS").unwrap_or_default();
    let any = parts.is_empty() || parts.iter().any(|(name, _)| name.contains(&only));
    assert!(any, "GPUHOST_PEER_PARTS={only} names no part");
    for (name, part) in parts.into_iter().filter(|(name, _)| name.contains(&only)) {
        let begun = std::time::Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| part(lab)));
        println!("{name}: {} in {:.1}s", if result.is_ok() { "ok" } else { "FAILED" }, begun.elapsed().as_secs_f64());
        if result.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

#[test]
fn real_clients_work_with_the_lab() {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (version, path) in kube_peers_parts::kubectls() {
        // The newer one repeats only what differs between versions of kubectl.
        let all = version == "installed" || parts.is_empty();
        for (name, part) in kubectl::PARTS
            .iter()
            .chain(everyday::PARTS)
            .chain(corners::PARTS)
            .chain(applying::PARTS)
            .chain(terminals::PARTS)
            .filter(|p| all || kubectl::VARY.contains(&p.0))
        {
            let path = path.clone();
            parts.push((format!("kubectl {version}: {name}"), Box::new(move |lab| part(&lab.kubectl(&path)))));
        }
    }
    // The newest kubectl has the words of the lab's K3s.
    if let Some((version, path)) = kube_peers_parts::kubectls().into_iter().find(|(v, _)| v != "installed") {
        let part = move |lab: &Served| node::same_words(&lab.kubectl(&path));
        parts.push((format!("kubectl {version} and that of a lab machine"), Box::new(part)));
    }
    for (version, path) in kube_peers_parts::helms() {
        parts.push((format!("helm {version}"), Box::new(move |lab| helm::releases(lab, &path, &version))));
    }
    match kube_peers_parts::python() {
        Some(path) => parts.push(("python".into(), Box::new(move |lab| python::clients(lab, &path)))),
        None => println!("skipped: no Python with the `kubernetes` package"),
    }
    if parts.is_empty() {
        println!("skipped: neither kubectl nor helm is at hand (see .ci/peers)");
        return;
    }
    parts.push(("our own client".into(), Box::new(ours::forwarded)));
    let lab = Served::start();
    all(&lab, parts);
}
