//! Promise: `ensure`'s firewall is what the real `nft` takes, keeps and removes, and it lets in what it says.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test stops at the first surprise
use std::process::{Command, Stdio};

use gpuhost_tests::Ran;
use gpuhost_tests::play::Play;

/// Two network namespaces with a cable between them: the host behind the rules, and somebody outside. A packet that
/// is let in is answered with a refusal at once, since nobody listens; one that is not is never answered.
const SCENE: &str = r#"
set -eu
ip link set lo up
unshare -n sleep 3600 &
peer=$!
trap 'kill $peer' EXIT
while [ "$(readlink /proc/$peer/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link add inside type veth peer name outside netns $peer
ip addr add 10.9.0.1/24 dev inside
ip link set inside up
nsenter -t $peer -n sh -c 'ip addr add 10.9.0.2/24 dev outside; ip addr add 10.9.0.99/24 dev outside; ip link set outside up'
knock() { # port: prints `in` or `out`
    if nsenter -t $peer -n timeout 2 bash -c "exec 3<>/dev/tcp/10.9.0.1/$1" 2>&1 | grep -q refused; then echo in; else echo out; fi
}
echo "before 8080 $(knock 8080)"
nft -f "$1"
nft -f "$1"
chain=$(sed -n 's/.*chain \(input_[0-9a-f]*\) .*/\1/p' "$1")
nft list chain inet gpuhost "$chain" >/dev/null && echo loaded
for port in 22 6443 30000 30005 30011 8080; do echo "$port $(knock $port)"; done
nft -f "$2"
nft list chain inet gpuhost "$chain" >/dev/null 2>&1 || echo replaced
echo "network 8080 $(knock 8080)"
nft delete table inet gpuhost
echo "after 8080 $(knock 8080)"
"#;

#[test]
fn real_nft_agrees() {
    let can = Command::new("unshare").args(["-n", "nft", "list", "ruleset"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|s| s.success()) || Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: needs root, nft (Debian: nftables) and ip (iproute2)");
        return;
    }
    let p = Play::deployed();
    let rules = |wanted: &str| {
        let text = format!(
            "let h = ssh::connect(\"muscle-a\"); h.ensure_firewall({wanted});\n\
             require(h.ensure_firewall({wanted}).len() == 0, \"once\");\n\
             print(h.read_file(\"/etc/gpuhost/firewall.nft\"));"
        );
        p.json(&text, &[]).expect(0).said("print").join("")
    };
    let some = rules(
        "#{ allow: [\"6443/tcp\", \"30000-30010/tcp\", \"8472/udp from 10.0.0.0/16\"], interfaces: [\"cni0\", \"veth*\"] }",
    );
    let network = rules("#{ allow: [\"8472/udp from fd00::/64\"], allow_from: [\"10.9.0.0/24\"] }");
    let (some, network) = (p.file("some.nft", &some), p.file("network.nft", &network));
    let scene = p.file("scene.sh", SCENE);
    let out = Command::new("unshare").args(["-n", "bash", &scene, &some, &network]).output().unwrap();
    let ran = Ran::of(&out).expect(0);
    let wanted = [
        "before 8080 in",
        "loaded",
        "22 in",
        "6443 in",
        "30000 in",
        "30005 in",
        "30011 out",
        "8080 out",
        "replaced",
        "network 8080 in",
        "after 8080 in",
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), wanted, "{}", ran.stderr);
}
