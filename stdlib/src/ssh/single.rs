//! `host.ensure_packages(..)` and friends: `ensure` with one key, made from the list of its options.
use rhai::{Array, Dynamic, FuncRegistration, Map, Module, NativeCallContext};

use crate::core::ctx::{RhaiResultOf, call};

use super::api::change_map;
use super::ensure::EnsureOptions;
use super::host::Host;

/// A value for the example of each key.
fn example(key: &str) -> &'static str {
    match key {
        "packages" => "[\"nfs-common\"]",
        "package_lists" => "1.hours",
        "firewall" => "#{ allow: [\"6443/tcp\"], allow_from: [\"10.0.0.0/16\"] }",
        "commands" => "#{ seed: #{ command: \"date > /srv/seeded\", creates: \"/srv/seeded\" } }",
        "repositories" => "#{ tools: \"deb https://deb.lab.example stable main\" }",
        "files" => "#{ \"/etc/motd\": \"hello\\n\" }",
        "lines" => "#{ \"/etc/environment\": [\"TIER=lab\"] }",
        "directories" => "[\"/srv/data\"]",
        "links" => "#{ \"/srv/now\": \"/srv/data\" }",
        "users" => "#{ ada: #{ groups: [\"sudo\"] } }",
        "groups" => "[\"render\"]",
        "authorized_keys" => "#{ debian: [\"ssh-ed25519 AAAA… ada\"] }",
        "sysctl" => "#{ \"vm.max_map_count\": 262144 }",
        "modules" => "[\"br_netfilter\"]",
        "swap" => "\"off\"",
        "services" => "#{ iscsid: \"running\" }",
        "units" => "#{ \"hello.service\": \"[Service]\\nExecStart=/bin/true\\n\" }",
        "timers" => "#{ trim: #{ on_calendar: \"weekly\", command: \"fstrim -av\" } }",
        "mounts" => "#{ \"/mnt/scratch\": #{ label: \"scratch\" } }",
        "filesystems" => "#{ site().data_device(\"nfs1\"): #{ label: \"nfs-data\" } }",
        "grow_root" => "true",
        "hostname" => "\"k3s-cp1\"",
        "hosts_entries" => "#{ \"10.0.0.11\": \"k3s-cp1\" }",
        "timezone" => "\"Etc/UTC\"",
        "ntp" => "[\"10.0.0.1\"]",
        _ => "#{ \"*\": #{ nofile: 1048576 } }",
    }
}

/// Adds `ensure_<key>` for every key of `ensure`.
pub(super) fn add(module: &mut Module) {
    for field in EnsureOptions::FIELDS {
        let key = field.name;
        let example = match key {
            // A map literal has no computed keys.
            "filesystems" => "let fs = #{};\n/// fs[site().data_device(\"nfs1\")] = #{ label: \"nfs-data\" };\n/// \
                              ssh::connect(\"nfs1\").ensure_filesystems(fs);"
                .to_owned(),
            _ => format!("ssh::connect(\"k3s-gpu1\").ensure_{key}({});", example(key)),
        };
        let doc = format!(
            "/// The key `{key}` of `ensure` alone; returns what differed.\n///\n/// {}\n///\n/// # Example\n/// ```rhai\n/// {example}\n/// ```",
            field.doc.trim()
        );
        FuncRegistration::new(format!("ensure_{key}"))
            .in_global_namespace()
            .with_purity(true)
            .with_params_info([
                "host: &mut Host".to_owned(),
                format!("wanted: {}", field.ty.replace(" of strings", "")),
                "RhaiResultOf<Array>".to_owned(),
            ])
            .with_comments(doc.lines())
            .set_into_module(
                module,
                move |ncc: NativeCallContext, host: &mut Host, wanted: Dynamic| -> RhaiResultOf<Array> {
                    let host = host.clone();
                    let map: Map = [(key.into(), wanted)].into_iter().collect();
                    let changes = call(&ncc, |ctx| async move { host.ensure(&ctx, &map).await })?;
                    Ok(changes.iter().map(change_map).collect())
                },
            );
    }
}
