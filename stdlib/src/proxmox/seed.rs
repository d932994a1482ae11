//! The cloud-init seed of the template build: installs the packages, forgets who it was, powers off.
use serde_json::json;

use super::iso::{self, SeedFile};

/// Volume label that cloud-init looks for.
pub const LABEL: &str = "CIDATA";

/// What the build VM is told.
#[derive(Debug, Clone)]
pub struct Seed<'a> {
    /// Host name.
    pub name: &'a str,
    /// Changes with every build, so that cloud-init runs.
    pub instance: &'a str,
    /// MAC of its NIC.
    pub mac: &'a str,
    /// Address with prefix length.
    pub address: &'a str,
    /// Default gateway.
    pub gateway: &'a str,
    /// Name servers.
    pub dns: &'a [String],
    /// Packages to install.
    pub packages: &'a [String],
}

fn user_data(s: &Seed<'_>) -> String {
    // Every clone makes its own machine id and host keys. Not `cloud-init clean`: run by cloud-init
    // itself it leaves a directory where the next boot wants to make a link; a clone's new instance-id
    // is what makes cloud-init run again.
    let seal = [
        "systemctl enable qemu-guest-agent || true",
        "apt-mark hold linux-image-cloud-amd64 linux-image-amd64 || true",
        "apt-get clean || true",
        "rm -f /etc/ssh/ssh_host_*",
        "rm -f /var/lib/dbus/machine-id",
        "truncate -s 0 /etc/machine-id",
        "sync",
    ];
    let data = json!({
        "hostname": s.name,
        "ssh_pwauth": false,
        "package_update": true,
        "packages": s.packages,
        "runcmd": seal,
        "power_state": { "mode": "poweroff", "delay": "now", "timeout": 60 },
    });
    // JSON is YAML.
    format!("#cloud-config\n{}\n", serde_json::to_string_pretty(&data).unwrap_or_default())
}

fn meta_data(s: &Seed<'_>) -> String {
    format!("instance-id: {}\nlocal-hostname: {}\n", s.instance, s.name)
}

fn network_config(s: &Seed<'_>) -> String {
    let data = json!({
        "version": 2,
        "ethernets": { "nic0": {
            "match": { "macaddress": s.mac.to_ascii_lowercase() },
            "addresses": [s.address],
            "gateway4": s.gateway,
            "nameservers": { "addresses": s.dns },
        }},
    });
    format!("{}\n", serde_json::to_string_pretty(&data).unwrap_or_default())
}

/// The seed as an ISO image.
#[must_use]
pub fn image(s: &Seed<'_>) -> Vec<u8> {
    let (user, meta, net) = (user_data(s), meta_data(s), network_config(s));
    iso::build(
        LABEL,
        &[
            SeedFile { name: "user-data", content: user.as_bytes() },
            SeedFile { name: "meta-data", content: meta.as_bytes() },
            SeedFile { name: "network-config", content: net.as_bytes() },
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_installs_the_packages_and_powers_off() {
        let s = Seed {
            name: "t",
            instance: "t-1",
            mac: "BC:24:11:00:00:01",
            address: "10.0.0.11/24",
            gateway: "10.0.0.1",
            dns: &["10.0.0.1".to_owned()],
            packages: &["qemu-guest-agent".to_owned()],
        };
        let user = user_data(&s);
        assert!(user.starts_with("#cloud-config\n"));
        let v: serde_json::Value = serde_saphyr::from_str(&user).unwrap();
        assert_eq!(v["packages"][0], "qemu-guest-agent");
        assert_eq!(v["power_state"]["mode"], "poweroff");
        let n: serde_json::Value = serde_saphyr::from_str(&network_config(&s)).unwrap();
        assert_eq!(n["ethernets"]["nic0"]["addresses"][0], "10.0.0.11/24");
        assert!(image(&s).len() > 25 * 2048);
    }
}
