//! Task ids: `UPID:node:pid:pstart:starttime:type:id:user[!token]:`.
use std::fmt;

/// A parsed task id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upid {
    /// Hypervisor node.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Start time of the process in jiffies.
    pub pstart: u64,
    /// Start of the task, seconds since 1970.
    pub starttime: u64,
    /// Task type, for example `qmclone`.
    pub kind: String,
    /// What it works on: a VM id, a file name; may be empty.
    pub id: String,
    /// User, without the token.
    pub user: String,
    /// Token name.
    pub token: Option<String>,
}

impl Upid {
    /// Reads a task id; `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Upid> {
        let parts: Vec<&str> = text.strip_prefix("UPID:")?.split(':').collect();
        let [node, pid, pstart, start, kind, id, who, ""] = parts[..] else { return None };
        let hex = |t: &str, lo: usize, hi: usize| {
            ((lo..=hi).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u64::from_str_radix(t, 16).ok())
                .flatten()
        };
        let node_ok = !node.is_empty() && node.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !node_ok || kind.is_empty() || who.is_empty() || kind.contains(char::is_whitespace) {
            return None;
        }
        let (user, token) = match who.split_once('!') {
            Some((u, t)) => (u, Some(t.to_owned())),
            None => (who, None),
        };
        Some(Upid {
            node: node.to_owned(),
            pid: u32::try_from(hex(pid, 8, 8)?).ok()?,
            pstart: hex(pstart, 8, 9)?,
            starttime: hex(start, 8, 8)?,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
            token,
        })
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UPID:{}:{:08X}:{:08X}:{:08X}:{}:{}:{}",
            self.node, self.pid, self.pstart, self.starttime, self.kind, self.id, self.user
        )?;
        if let Some(t) = &self.token {
            write!(f, "!{t}")?;
        }
        f.write_str(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for text in [
            "UPID:pve1:0000100E:0009EFAF:6B02D28D:imgcopy::root@pam!lab:",
            "UPID:pve1:00005F97:00028A17:6B02BF9D:qmstop:9000:root@pam:",
        ] {
            let u = Upid::parse(text).unwrap();
            assert_eq!(u.to_string(), text);
        }
        let u = Upid::parse("UPID:pve1:0000100E:0009EFAF:6B02D28D:imgcopy::root@pam!lab:").unwrap();
        assert_eq!((u.pid, u.pstart, u.token.as_deref()), (4110, 651_183, Some("lab")));
        for bad in ["", "UPID:bad", "UPID:pve1:1:2:3:qmstop:1:root@pam:", "UPID:pve1:0000100E:0009EFAF:6B02D28D:x:1:u"]
        {
            assert!(Upid::parse(bad).is_none(), "{bad}");
        }
    }
}
