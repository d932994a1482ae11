//! SSH host keys of a guest: made on first boot from the lab's seed, kept as OpenSSH files.
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{HashAlg, PrivateKey};

use super::fs::Who;
use super::live::Machine;
use crate::world::World;

/// Where the private key is.
pub const KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// Makes the host key when there is none, or a new one with `fresh`.
pub fn ensure(w: &mut World, m: &Machine, fresh: bool) {
    if m.files.exists(KEY) && !fresh {
        return;
    }
    let seed: Vec<u8> = (0..4).flat_map(|_| w.random().to_be_bytes()).collect();
    let mut bytes = [0u8; 32];
    bytes.copy_from_slice(&seed);
    let name = m.files.text("/etc/hostname").trim().to_owned();
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&bytes));
    let Ok(mut key) = PrivateKey::new(pair, format!("root@{name}")) else { return };
    key.set_comment(format!("root@{name}"));
    if let (Ok(private), Ok(public)) = (key.to_openssh(LineEnding::LF), key.public_key().to_openssh()) {
        m.files.place_file(KEY, private.as_bytes(), 0o600);
        m.files.place_file(&format!("{KEY}.pub"), format!("{public}\n").as_bytes(), 0o644);
    }
}

/// The key sshd serves with.
#[must_use]
pub fn load(m: &Machine) -> Option<PrivateKey> {
    let bytes = m.files.read(&Who::root(), KEY).ok()?;
    PrivateKey::from_openssh(bytes.as_slice()).ok()
}

/// The public host key of a machine that has booted, as one line.
#[must_use]
pub fn public(lab: &crate::Lab, vmid: u32) -> Option<String> {
    let text = lab.guests().get(vmid)?.files.text(&format!("{KEY}.pub"));
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Fingerprint of a public key line, as `ssh-keygen -l` prints it.
#[must_use]
pub fn fingerprint(line: &str) -> Option<String> {
    russh::keys::PublicKey::from_openssh(line).ok().map(|k| k.fingerprint(HashAlg::Sha256).to_string())
}
