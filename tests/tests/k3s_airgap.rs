//! Nodes that no download reaches: K3s' binary and images are brought to them from the operator's machine, by deploy and
//! by upgrade.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_lab::guest::k3s::binary;
use gpuhost_lab::kube::text::sha256_of;
use gpuhost_tests::play::Play;

const FIRST: &str = "v1.34.9+k3s1";
const NEXT: &str = "v1.35.7+k3s1";
const IMAGES: &str = "k3s-airgap-images-amd64.tar.zst";

/// The small site with what it brings for `version`; the files lie in the bench's project folder.
fn site(p: &mut Play, version: &str, sum: &str) {
    let dir = p.b.path("project").display().to_string();
    let k3s = p.file(&format!("k3s-{version}"), &String::from_utf8(binary(version)).unwrap());
    let images = p.file(IMAGES, "container images of this release\n");
    let k3s =
        format!("version = \"{version}\"\nbinary = \"{k3s}\"\nbinary_sha256 = \"{sum}\"\nimages = [\"{images}\"]");
    let with = format!("[permissions]\nfiles = [\"{dir}\"]\n\n[k3s]");
    p.change_site(&[("version = \"v1.34.9+k3s1\"", k3s.as_str()), ("[k3s]", with.as_str())]);
}

#[test]
fn nodes_without_internet_get_their_k3s_from_here() {
    let mut p = Play::new();
    let faults = p.file("faults", "net.fetch@*: timeout\n");
    let offline = ["--faults", faults.as_str(), "--yes"];

    // without a binary at hand each node would download it
    let failed = p.recipe("recipes/deploy.rhai", &offline).expect(1).finished();
    let error = failed["error"].to_string();
    assert!(error.contains("cannot be downloaded") && error.contains("brain"), "{error}");

    // a file that is another than the site file says is not sent
    site(&mut p, FIRST, &"0".repeat(64));
    let error = p.recipe("recipes/deploy.rhai", &offline).expect(1).finished()["error"].to_string();
    assert!(error.contains("has a wrong checksum"), "{error}");

    site(&mut p, FIRST, &sha256_of(&binary(FIRST)));
    let _ = p.recipe("recipes/deploy.rhai", &offline).expect(0);
    let again = p.recipe("recipes/deploy.rhai", &offline).expect(0).finished();
    assert_eq!(again["changed"], 0, "{again}");
    let look = format!(
        "for h in site().hosts(\"server\") + site().hosts(\"agent\") {{\n\
         let seen = h.read(\"sha256sum /usr/local/bin/k3s; ls /var/lib/rancher/k3s/agent/images\").stdout;\n\
         require(seen.contains(\"{}\") && seen.contains(\"{IMAGES}\"), seen);\n}}\n",
        sha256_of(&binary(FIRST))
    );
    let _ = p.json(&look, &[]).expect(0);

    // so does an upgrade
    site(&mut p, NEXT, &sha256_of(&binary(NEXT)));
    let _ = p.recipe("recipes/upgrade.rhai", &offline).expect(0);
    assert_eq!(p.recipe("recipes/upgrade.rhai", &offline).expect(0).finished()["changed"], 0);
}
