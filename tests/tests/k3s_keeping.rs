//! What K3s keeps up while nobody looks, on a deployed lab: certificates of its machines, scheduled etcd snapshots, and
//! the tokens that let agents join.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::Bench;
use serde_json::Value;

struct Lab(Bench);

impl Lab {
    fn new() -> Self {
        let b = Bench::new();
        let made = b.run(&["lab", "reset", "--start", "deployed", "--site", "recipes/site.toml"]);
        assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
        Lab(b)
    }

    /// Runs a recipe text; what it printed.
    fn script(&self, text: &str) -> Vec<String> {
        let path = self.0.path("step.rhai");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let ran = self.0.run(&["run", &path, "--site", "recipes/site.toml", "--lab", "--json", "--yes"]);
        assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
        let events = ran.stdout.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let said = events.filter(|e| e["event"] == "message").filter_map(|e| e["text"].as_str().map(str::to_owned));
        said.collect()
    }

    /// Runs a command on a machine; what it printed.
    fn on(&self, machine: &str, command: &str) -> String {
        let text = format!("print(ssh::connect(\"{machine}\").run(`{command}`).stdout);");
        self.script(&text).join("\n")
    }
}

#[test]
fn certificates_last_a_year_and_snapshots_come_by_their_schedule() {
    let lab = Lab::new();
    certificates(&lab);
    filters(&lab);
    tokens(&lab);
    snapshots(&lab);
}

fn certificates(lab: &Lab) {
    for (machine, count) in [("k3s-cp1", 15), ("k3s-gpu1", 4)] {
        let all: Value = serde_json::from_str(&lab.on(machine, "k3s certificate check --output json")).unwrap();
        let all = all["Certificates"].as_array().unwrap().clone();
        assert_eq!(all.len(), count, "{all:#?}");
        for c in &all {
            let days = c["ResidualTime"].as_i64().unwrap() / 1_000_000_000 / 86_400;
            assert!(c["Status"] == "OK" && days == 364, "{c}");
        }
        let kubelet = all.iter().find(|c| c["Filename"] == "client-kubelet.crt").unwrap();
        assert_eq!(kubelet["Subject"], format!("system:node:{machine}"));
        assert_eq!(kubelet["Usages"], serde_json::json!(["ClientAuth"]));
    }
    let table = lab.on("k3s-cp1", "k3s certificate check --output table");
    let row = table.lines().find(|l| l.starts_with("client-admin.crt")).unwrap();
    assert!(row.contains("   system:admin   ") && row.ends_with("OK") && row.contains("   1 year "), "{table}");
    let end = lab.on("k3s-cp1", "openssl x509 -in /var/lib/rancher/k3s/server/tls/client-admin.crt -noout -enddate");
    assert!(end.contains("notAfter=Nov 22") && end.contains("2027"), "{end}");
    let days = lab.script(
        "for c in k3s::connect(site().hosts(\"server\")).check_certificates() { print(`${c.name}: ${c.days}`); }",
    );
    assert!(days.contains(&"client certificate of k3s-cp3: 364".to_owned()), "{days:?}");
    assert!(
        days.iter().any(|d| d.starts_with("certificate of k3s-cp2: "))
            && days.contains(&"cluster's CA: 3649".to_owned()),
        "{days:?}"
    );
}

fn tokens(lab: &Lab) {
    let made = lab.on("k3s-cp1", "k3s token create abcdef.0123456789abcdef --description spare --ttl 2h");
    let hash = made.trim().strip_prefix("K10").and_then(|t| t.strip_suffix("::abcdef.0123456789abcdef"));
    assert!(hash.is_some_and(|h| h.len() == 64), "{made}");
    let list = lab.on("k3s-cp1", "k3s token list");
    let row: Vec<&str> = list.lines().find(|l| l.starts_with("abcdef")).unwrap().split_whitespace().collect();
    assert_eq!((row[1], row[3], row[4]), ("1h", "authentication,signing", "spare"), "{list}");
    let again = lab.on("k3s-cp1", "k3s token create abcdef.0123456789abcdef 2>&1; true");
    assert!(again.contains("a token with id \\\"abcdef\\\" already exists"), "{again}");
    // it lets an agent in, for as long as it is there
    let more = "/etc/rancher/k3s/config.yaml.d";
    // with the hash of the CA and without it
    for token in [made.trim(), "abcdef.0123456789abcdef"] {
        let given = format!("mkdir -p {more} && echo 'token: {token}' > {more}/token.yaml");
        lab.on("k3s-gpu1", &format!("{given} && systemctl restart k3s-agent"));
        lab.script("sleep(1.minutes);\nk3s::connect(site().hosts(\"server\")).wait_nodes([\"k3s-gpu1\"], 5.minutes);");
    }
    assert_eq!(lab.on("k3s-cp1", "k3s token delete abcdef").trim(), "bootstrap token \"abcdef\" deleted");
    assert!(!lab.on("k3s-cp1", "k3s token list").contains("abcdef"));
    lab.on("k3s-gpu1", "systemctl restart k3s-agent; true");
    let said = lab.script(
        "sleep(30.seconds);\nprint(ssh::connect(\"k3s-gpu1\").run(\"journalctl -u k3s-agent -n 5 -o cat\").stdout);",
    );
    assert!(said.join("\n").contains("401 Unauthorized"), "{said:?}");
    assert_eq!(lab.on("k3s-cp1", "k3s token generate").trim().len(), 23);
    assert!(lab.on("k3s-gpu1", "k3s check-config").trim().ends_with("STATUS: pass"));
}

/// A server whose firewall drops port 6443 answers nobody; the others do.
fn filters(lab: &Lab) {
    let rule = "apt-get install -y nftables >/dev/null && nft -f - <<'END'\ntable inet x {\n chain in {\n  type filter hook input priority 0;\n  tcp dport 6443 drop\n }\n}\nEND";
    lab.on("k3s-cp1", rule);
    let ask = "let wrong = k3s::connect(site().hosts(\"server\")).check_servers([\"k3s-cp1\", \"k3s-cp2\"]);\nprint(wrong.join(\"; \"));";
    let said = lab.script(ask).join("\n");
    assert!(said.contains("API server of k3s-cp1 is not ready") && !said.contains("k3s-cp2"), "{said}");
    lab.on("k3s-cp1", "nft delete table inet x");
    assert_eq!(lab.script(ask).join("").trim(), "");
}

fn snapshots(lab: &Lab) {
    let list = "let cluster = k3s::connect(site().hosts(\"server\"));\n\
        for s in cluster.list_snapshots() { print(`${s.name} ${s.node} ${s.ready}`); }\n\
        let age = cluster.check_backups();\nprint(`age ${age.hours} late ${age.late.len()}`);\n";
    assert_eq!(lab.script(list), ["age  late 0"], "nothing is saved before its time");
    let said = lab.script(&format!("sleep(7.hours);\n{list}"));
    assert_eq!((said.len(), said.last().unwrap().as_str()), (4, "age 4 late 0"), "{said:?}");
    for node in ["k3s-cp1", "k3s-cp2", "k3s-cp3"] {
        let name = said.iter().find(|s| s.starts_with(&format!("etcd-snapshot-{node}-"))).unwrap();
        assert!(name.ends_with(&format!(" {node} true")), "{name}");
        // by the minute of the schedule, and a few seconds
        let secs: u64 = name.split(' ').next().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        assert!(secs % (6 * 3600) < 6, "{name}");
    }
    let said = lab.script(&format!("sleep(150.hours);\n{list}"));
    let of = |node: &str| said.iter().filter(|s| s.contains(&format!("-{node}-"))).count();
    assert_eq!((of("k3s-cp1"), of("k3s-cp3"), said.last().unwrap().ends_with("late 0")), (20, 20, true), "{said:?}");
    let files = lab.on("k3s-cp2", "k3s etcd-snapshot ls | grep -c etcd-snapshot-k3s-cp2-");
    assert_eq!(files.trim(), "20");
    // without its schedule a server is late after two periods, and named
    lab.on("k3s-cp2", "systemctl stop k3s");
    let said = lab.script(&format!("sleep(20.hours);\n{list}"));
    assert!(said.last().unwrap().ends_with("late 1"), "{said:?}");
}
