//! Least privilege: the recommended role is enough, misses nothing silently, and cannot reach a foreign VM.
//! One privilege less: a third of them by default, every one with `GPUHOST_TESTS_FULL=1`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::time::Duration;

use gpuhost_lab::spec::Spec;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::proxmox::{Request, TemplateOptions};
use gpuhost_tests::bed::{Bed, SITE, full, start, told, with_a_foreign_share};
use serde_json::{Value, json};

/// One server without GPUs: all that Proxmox has to do for a deploy, in its smallest form.
fn minimal() -> String {
    let first = SITE.find("[[nodes]]").unwrap();
    let second = first + 1 + SITE[first + 1..].find("[[nodes]]").unwrap();
    let after = SITE.find("[k3s]").unwrap();
    with_a_foreign_share(&format!("{}{}{}", &SITE[..first], &SITE[first..second], &SITE[after..]))
}

async fn bed(version: &str) -> Bed {
    Bed::on(&minimal(), Spec { pve_version: version.to_owned(), ..Spec::homelab().unwrap() }).await
}

/// The Proxmox part of a deploy, without the preflight.
async fn deploy(b: &Bed) -> OpResult<()> {
    let t = b.pve.ensure_template(&b.ctx, &TemplateOptions::of_site(&b.site)).await?;
    let vm = b.vm("k3s-cp1", &start(&t)).await?;
    vm.wait_ready(&b.ctx, Duration::from_secs(900)).await?;
    vm.ssh(&b.ctx).await?;
    Ok(())
}

async fn cleanup(b: &Bed) {
    for (m, _) in b.pve.owned(&b.ctx).await.unwrap() {
        let vm = b.pve.find_vm(&b.ctx, &i64::from(m.at.vmid).into()).await.unwrap().unwrap();
        if !vm.is_template() {
            b.remove(&vm, true).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        }
    }
    let o = TemplateOptions::of_site(&b.site);
    b.pve.remove_template(&b.ctx, &o).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    b.pve.remove_content(&b.ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
}

/// Role and privileges of a `pveum role add` line.
fn role_line(line: &str) -> Option<(String, Vec<String>)> {
    let name = line.strip_prefix("pveum role add ")?.split(' ').next()?.to_owned();
    Some((name, line.split('"').nth(1)?.split(' ').map(str::to_owned).collect()))
}

async fn one_privilege_less(version: &str) {
    let b = bed(version).await;
    b.strip();
    let lines = b.pve.check_permissions(&b.ctx).await.unwrap().commands;
    b.pveum(&lines);
    deploy(&b).await.unwrap_or_else(|e| panic!("the printed role is enough on {version}: {}", told(&e)));
    cleanup(&b).await;
    let roles: Vec<(String, Vec<String>)> = lines.iter().filter_map(|l| role_line(l)).collect();
    let (mut named, mut tried) = (0, 0);
    let mut superfluous = Vec::new();
    for (role, all) in &roles {
        for (i, gone) in all.iter().enumerate() {
            if !full() && i % 3 != usize::from(version.starts_with('8')) {
                continue;
            }
            tried += 1;
            let left: Vec<String> = all.iter().filter(|p| *p != gone).cloned().collect();
            b.lab.with(|w| w.pve.access.roles.insert(role.clone(), left.into_iter().collect()));
            let r = b.pve.check_permissions(&b.ctx).await;
            match r {
                Ok(r) => {
                    let problems: Vec<&str> = r.problems.iter().map(|p| p.text.as_str()).collect();
                    assert!(
                        !problems.is_empty() && problems.iter().all(|p| p.contains(gone.as_str())),
                        "{role} without {gone}: {problems:?}"
                    );
                }
                Err(e) => assert!(told(&e).contains(gone.as_str()), "{role} without {gone}: {}", told(&e)),
            }
            match deploy(&b).await {
                Ok(()) => superfluous.push(format!("{gone} in {role}")),
                Err(e) => {
                    assert!(told(&e).contains(gone.as_str()), "{role} without {gone}: {}", told(&e));
                    named += 1;
                }
            }
            b.lab.with(|w| w.pve.access.roles.insert(role.clone(), all.iter().cloned().collect()));
            cleanup(&b).await;
        }
    }
    println!(
        "PVE {version}: of {tried} missing privileges the deploy itself names {named}, and misses not: {superfluous:?}"
    );
    assert!(named * 2 >= tried, "{named} of {tried} named, {superfluous:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_privilege_less_on_9() {
    one_privilege_less("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_privilege_less_on_8() {
    one_privilege_less("8.4").await;
}

/// Safety rule 20: a bug in the tool, or a recipe that goes around it, cannot reach a foreign VM.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recommended_role_cannot_touch_a_foreign_vm() {
    for version in ["9.1", "8.4"] {
        let b = bed(version).await;
        b.strip();
        let lines = b.pve.check_permissions(&b.ctx).await.unwrap().commands;
        b.pveum(&lines);
        b.pve.ensure_pool(&b.ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        let (id, conf) = b.lab.with(|w| w.pve.vms.iter().next().map(|(i, v)| (*i, v.conf.clone())).unwrap());
        let before = b.world();
        let vm = format!("/nodes/pve1/qemu/{id}");
        let attacks: Vec<(&str, String, Value)> = vec![
            ("POST", format!("{vm}/status/stop"), json!({})),
            ("POST", format!("{vm}/status/shutdown"), json!({"forceStop": 1})),
            ("POST", format!("{vm}/status/reset"), json!({})),
            ("PUT", format!("{vm}/config"), json!({"description": "mine now"})),
            ("POST", format!("{vm}/config"), json!({"scsi5": "local-zfs:8"})),
            ("PUT", format!("{vm}/resize"), json!({"disk": "scsi0", "size": "+1G"})),
            ("POST", format!("{vm}/move_disk"), json!({"disk": "scsi0", "storage": "local-zfs"})),
            ("POST", format!("{vm}/clone"), json!({"newid": 777, "pool": b.site.pool()})),
            ("POST", format!("{vm}/template"), json!({})),
            ("POST", format!("{vm}/snapshot"), json!({"snapname": "x1"})),
            ("POST", format!("{vm}/agent/exec"), json!({"command": ["true"]})),
            ("PUT", "/pools".to_owned(), json!({"poolid": b.site.pool(), "vms": id.to_string()})),
            (
                "PUT",
                "/access/acl".to_owned(),
                json!({"path": "/vms", "roles": "Administrator", "tokens": "gpuhost@pve!deploy"}),
            ),
            ("DELETE", vm.clone(), Value::Null),
        ];
        for (method, path, body) in attacks {
            let r = Request {
                method: method.parse().unwrap(),
                path: path.clone(),
                query: Vec::new(),
                body: body.as_object().cloned(),
            };
            let e = b.pve.send(&b.ctx, &r).await.expect_err(&format!("{version}: {method} {path} went through"));
            assert_eq!(e.status, 403, "{version}: {method} {path}: {e}");
        }
        assert_eq!(b.world(), before, "{version}: nothing has changed");
        // The tool itself refuses before it asks.
        b.strip();
        b.pveum(&[
            "pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles Administrator".to_owned(),
            "pveum acl modify / --users gpuhost@pve --roles Administrator".to_owned(),
        ]);
        let foreign = b.pve.find_vm(&b.ctx, &i64::from(id).into()).await.unwrap().unwrap();
        for (what, done) in [
            ("stop", foreign.stop(&b.ctx).await),
            ("reset", foreign.reset(&b.ctx).await),
            ("convert", foreign.convert_to_template(&b.ctx).await),
            ("remove", b.remove(&foreign, true).await.map(|_| ())),
        ] {
            let e = done.expect_err(what);
            assert!(e.stop.is_some() && e.message.contains("refused"), "{what}: {}", told(&e));
        }
        let after = b.world();
        assert!(after["vms"] == before["vms"] && after["volumes"] == before["volumes"], "{version}");
        assert_eq!(b.lab.with(|w| w.pve.vms[&id].conf.clone()), conf);
    }
}
