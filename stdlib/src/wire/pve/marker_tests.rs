//! Table test of the ownership rule (safety rules 2 to 4).
use super::*;

const SITE: &str = "5f0c8a52-3f5e-4f0b-9d53-6c1f0f1c7a10";
const OTHER: &str = "00000000-1111-2222-3333-444444444444";
const UUID: &str = "b67d7bbf-b715-484b-9b40-af5a2f91cd06";

fn marker() -> Marker {
    Marker { smbios: Some(UUID.to_owned()), ..Marker::new(SITE, "k3s-cp1", 201, "c1") }
}

fn want() -> Expected<'static> {
    Expected { site: SITE, pool: "gpuhost-homelab", node: Some("k3s-cp1"), pve_node: Some("pve1") }
}

#[test]
fn every_case_of_the_ownership_rule() {
    let own = marker().line();
    let newborn = Marker { smbios: None, ..marker() }.line();
    let others = Marker { site: OTHER.to_owned(), ..marker() }.line();
    let edited = format!("my notes: do not touch\n{own}\n# more");
    let cut = own[..own.len() - 12].to_owned();
    let twice = format!("{own}\n{own}");
    let pool = Some("gpuhost-homelab");
    let base = Seen { vmid: 201, name: "k3s-cp1", pve_node: "pve1", pool, description: &own, smbios: Some(UUID) };
    let new = Some("a0000000-0000-0000-0000-000000000000");
    let table: Vec<(&str, Seen<'_>, Ownership)> = vec![
        ("as made", base, Ownership::Own),
        (
            "just cloned, uuid not yet in the marker",
            Seen { description: &newborn, smbios: new, ..base },
            Ownership::Own,
        ),
        ("user wrote notes around the marker", Seen { description: &edited, ..base }, Ownership::Own),
        (
            "clone made in the UI",
            Seen { vmid: 305, name: "Copy-of-VM-k3s-cp1", pool: None, smbios: new, ..base },
            Ownership::Copy,
        ),
        ("clone made in the UI into our pool under our name", Seen { vmid: 305, smbios: new, ..base }, Ownership::Copy),
        ("original gone, clone took its id", Seen { smbios: new, ..base }, Ownership::Copy),
        ("restored from backup with another id", Seen { vmid: 306, ..base }, Ownership::Copy),
        ("renamed", Seen { name: "cp-one", ..base }, Ownership::Moved),
        ("migrated to another hypervisor node", Seen { pve_node: "pve2", ..base }, Ownership::Moved),
        ("moved to another pool", Seen { pool: Some("mine"), ..base }, Ownership::Moved),
        ("taken out of the pool", Seen { pool: None, ..base }, Ownership::Moved),
        ("marker of another site of the same name", Seen { description: &others, ..base }, Ownership::Foreign),
        ("no marker, no pool", Seen { description: "web server", pool: None, ..base }, Ownership::Foreign),
        ("no marker, another pool", Seen { description: "", pool: Some("mine"), ..base }, Ownership::Foreign),
        ("notes erased in our pool", Seen { description: "", ..base }, Ownership::Unknown),
        ("marker cut off", Seen { description: &cut, ..base }, Ownership::Unknown),
        ("two markers", Seen { description: &twice, ..base }, Ownership::Unknown),
    ];
    for (case, seen, expected) in table {
        let v = judge(want(), seen);
        assert_eq!(v.ownership, expected, "{case}: {}", v.why);
        assert_eq!(v.hint.is_empty(), expected == Ownership::Own, "{case}");
        assert!(v.why.contains(&seen.vmid.to_string()), "{case}: {}", v.why);
    }
    assert_eq!(hidden(201).ownership, Ownership::Unknown);
    let v = judge(Expected { node: Some("k3s-cp9"), ..want() }, base);
    assert_eq!(v.ownership, Ownership::Moved, "the site file now calls id 201 by another name");
}

#[test]
fn tags_and_names_prove_nothing() {
    let seen =
        Seen { vmid: 201, name: "k3s-cp1", pve_node: "pve1", pool: None, description: "gpuhost", smbios: Some(UUID) };
    assert_eq!(judge(want(), seen).ownership, Ownership::Foreign);
}

#[test]
fn the_line_is_the_agreed_one_and_keeps_the_users_text() {
    assert_eq!(
        marker().line(),
        format!(
            "<!-- gpuhost {{\"v\":1,\"site\":\"{SITE}\",\"node\":\"k3s-cp1\",\"vmid\":201,\"id\":\"c1\",\"smbios\":\"{UUID}\"}} -->"
        )
    );
    let text = marker().put_into("my notes\n");
    assert_eq!(text, format!("my notes\n\n{}", marker().line()));
    let changed = Marker { id: "c2".to_owned(), ..marker() };
    let text = changed.put_into(&format!("a\n{}\nb", marker().line()));
    assert_eq!(text, format!("a\n{}\nb", changed.line()));
    assert_eq!(Marker::find(&text), Ok(Some(changed.clone())));
    assert_eq!(changed.put_into(&text), text);
}
