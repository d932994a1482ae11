//! Promise: a mistake in the site file is a finding with its line and what to do, before anything runs.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_tests::Bench;
use gpuhost_tests::play::changed;

struct Case {
    /// Replacements in the default site file.
    changes: &'static [(&'static str, &'static str)],
    /// Text at whose line the finding stands; in the changed file.
    at: &'static str,
    /// What the finding says.
    says: &'static [&'static str],
}

const fn case(
    changes: &'static [(&'static str, &'static str)],
    at: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case { changes, at, says }
}

const MEMORY: &str = "memory = \"16 GiB\"";
const CP2: &str = "ip = \"10.0.0.12\"";

const CASES: &[Case] = &[
    // Unknown keys and sections.
    case(&[("gateway =", "gatway =")], "gatway =", &["unknown key `gatway`", "did you mean `gateway`"]),
    case(&[("scratch = \"1", "scrach = \"1")], "scrach =", &["unknown key `scrach`", "did you mean `scratch`"]),
    case(&[("[platform.rancher]", "[platform.ranger]")], "[platform.ranger]", &["`ranger`", "`rancher`"]),
    case(&[("[gpu]", "[gpus]")], "[gpus]", &["unknown section `gpus`", "did you mean `gpu`"]),
    // Units.
    case(&[(MEMORY, "memory = \"16 Gigs\"")], "16 Gigs", &["size such as `16 GiB`"]),
    case(&[(MEMORY, "memory = 16 ")], "memory = 16 ", &["size such as", "found `16`"]),
    case(&[(MEMORY, "memory = \"16\"")], "memory = \"16\"", &["size such as"]),
    case(&[("data = \"2 TiB\"", "data = \"2 TB\"")], "data = \"2 TB\"", &["size such as", "`2 TB`"]),
    case(&[(MEMORY, "memory = \"-16 GiB\"")], "-16 GiB", &["size such as"]),
    case(&[("cores = 4", "cores = \"four\"")], "\"four\"", &["whole number"]),
    case(&[("gpus = 2", "gpus = -1")], "gpus = -1", &["`gpus`", "`-1`"]),
    // Twice the same.
    case(&[("\"k3s-cp2\"", "\"k3s-cp1\" ")], "\"k3s-cp1\" ", &["duplicate name `k3s-cp1`", "has it already"]),
    case(&[(CP2, "ip = \"10.0.0.11\" ")], "\"10.0.0.11\" ", &["duplicate ip `10.0.0.11`"]),
    case(&[("vmid = 202", "vmid = 201 ")], "vmid = 201 ", &["duplicate vmid `201`"]),
    case(
        &[
            (CP2, "ip = \"10.0.0.12\"\nmac = \"BC:24:11:00:00:C9\""),
            ("ip = \"10.0.0.13\"", "ip = \"10.0.0.13\"\nmac = \"bc:24:11:00:00:c9\""),
        ],
        "bc:24:11:00:00:c9",
        &["duplicate mac"],
    ),
    case(&[("vmid = 202", "vmid = 9000 ")], "vmid = 9000 ", &["duplicate vmid `9000`"]),
    // Addresses.
    case(&[(CP2, "ip = \"10.0.1.12\"")], "10.0.1.12", &["outside 10.0.0.0/24"]),
    case(&[(CP2, "ip = \"10.0.0.300\"")], "10.0.0.300", &["not an IPv4 address"]),
    case(&[(CP2, "ip = \"10.0.0.1\" ")], "ip = \"10.0.0.1\" ", &["10.0.0.1", "gateway"]),
    case(&[(CP2, "ip = \"10.0.0.255\"")], "10.0.0.255", &["10.0.0.255", "10.0.0.0/24"]),
    case(&[(CP2, "ip = \"10.0.0.2\" ")], "ip = \"10.0.0.2\" ", &["10.0.0.2", "proxmox.url"]),
    case(&[("gateway = \"10.0.0.1\"", "gateway = \"10.9.0.1\"")], "10.9.0.1", &["gateway `10.9.0.1` is outside"]),
    case(&[("cidr = \"10.0.0.0/24\"", "cidr = \"10.0.0.0/99\"")], "10.0.0.0/99", &["not a subnet"]),
    case(&[("\"10.42.0.0/16\"", "\"10.0.0.0/16\"")], "10.0.0.0/16", &["overlaps", "network.cidr"]),
    case(&[("\"10.43.0.0/16\"", "\"10.42.128.0/17\"")], "10.42.128.0/17", &["overlaps", "cluster_cidr"]),
    case(&[("url = \"https://10.0.0.2:8006\"", "url = \"10.0.0.2\"")], "url = \"10.0.0.2\"", &["https"]),
    // Words.
    case(
        &[("role = \"gpu-worker\"", "role = \"gpu-wroker\"")],
        "gpu-wroker",
        &["unknown role", "did you mean `gpu-worker`"],
    ),
    case(&[("kind = \"agent\"", "kind = \"agnet\"")], "agnet", &["unknown kind", "server, agent, storage"]),
    case(&[("version = \"v1.34.9+k3s1\"", "version = \"stable\"")], "\"stable\"", &["not a K3s release"]),
    case(&[("token = \"env:GPUHOST_PROXMOX_TOKEN\"", "token = \"1234-plain\"")], "token = ", &["expected a reference"]),
    case(&[("\"10de:20f1\"", "\"nvidia\"")], "\"nvidia\"", &["vendor:device", "lspci -nn"]),
    // What a recipe would miss in the middle.
    case(&[("data = \"2 TiB\"", "")], "[roles.storage]", &["`data`", "storage"]),
    case(&[("role = \"storage\"", "role = \"server\"")], "[storage]", &["storage", "nfs_server"]),
];

/// Findings, each with its hint.
fn findings(said: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for l in said.lines() {
        match all.last_mut() {
            Some(last) if l.starts_with(' ') => *last = format!("{last}\n{l}"),
            _ => all.push(l.to_owned()),
        }
    }
    all
}

#[test]
fn every_mistake_is_found_at_its_line() {
    let b = Bench::new();
    std::fs::create_dir_all(b.path("project")).unwrap();
    std::fs::write(b.path("project/hello.rhai"), "print(\"hello\");\n").unwrap();
    let recipe = b.path("project/hello.rhai").display().to_string();
    let mut bad = Vec::new();
    for c in CASES {
        let site = changed(&b, "recipes/site.toml", c.changes);
        let text = std::fs::read_to_string(&site).unwrap();
        let line = 1 + text[..text.find(c.at).unwrap_or_else(|| panic!("{}", c.at))].matches('\n').count();
        let ran = b.run(&["check", &recipe, "--site", &site]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        let place = format!("site.toml:{line}:");
        let found = findings(&said).iter().any(|f| f.contains(&place) && c.says.iter().all(|s| f.contains(s)));
        if ran.code != 2 || !found {
            bad.push(format!("{:?}: exit {}, wanted {place} {:?} in\n{said}", c.changes, ran.code, c.says));
        }
    }
    assert!(bad.is_empty(), "{} of {}:\n{}", bad.len(), CASES.len(), bad.join("\n"));
}

#[test]
fn no_list_of_known_names_repeats_itself() {
    let b = Bench::new();
    let site = changed(&b, "recipes/site.toml", &[("[site]", "[zzzzzz]")]);
    let ran = b.run(&["check", "recipes/deploy.rhai", "--site", &site]).expect(2);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    let known = said.split("known: ").nth(1).unwrap_or_else(|| panic!("{said}")).lines().next().unwrap();
    let mut names: Vec<&str> = known.split(", ").collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{known}");
}

#[test]
fn a_run_stops_at_them_before_anything_is_touched() {
    let b = Bench::new();
    let site = changed(&b, "recipes/site.toml", &[("gateway =", "gatway =")]);
    let ran = b.run(&["run", "recipes/deploy.rhai", "--lab", "--json", "--site", &site]).expect(2);
    let end = ran.finished();
    assert_eq!((end["exit"].as_i64(), end["changed"].as_i64()), (Some(2), Some(0)), "{end}");
    assert_eq!(end["lab"], true, "{end}");
    assert!(ran.events().iter().any(|e| e["event"] == "finding" && e["line"].is_u64()), "{}", ran.stdout);
}

#[test]
fn the_default_site_file_is_the_manual_of_all_keys() {
    let manual = std::fs::read_to_string(gpuhost_tests::root().join("recipes/site.toml")).unwrap();
    let reference = std::fs::read_to_string(gpuhost_tests::root().join("docs/src/reference/site-file.md")).unwrap();
    let mut missing = Vec::new();
    let mut section = String::new();
    for line in reference.lines() {
        if let Some(s) = line.strip_prefix("## ") {
            section = s.to_owned();
        }
        let key = line.strip_prefix("| `").and_then(|l| l.split('`').next());
        // `[lab]` is written by the program itself.
        if let Some(key) = key.filter(|_| !section.starts_with("`[lab]`")) {
            let named = |l: &str| {
                let l = l.trim_start_matches(['#', ' ']);
                l.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
            };
            if !manual.lines().any(named) {
                missing.push(format!("{section} {key}"));
            }
        }
    }
    assert!(missing.is_empty(), "recipes/site.toml does not mention:\n{}", missing.join("\n"));
}
