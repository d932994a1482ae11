//! Wanted kernel settings, modules, host name and time zone.
use crate::core::error::OpResult;
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

/// A kernel parameter as it is now (the drop-in for the next boot is an edit of its own).
pub(super) struct Sysctl {
    pub key: String,
    pub value: String,
}

fn squeezed(s: &str) -> String {
    s.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Item for Sysctl {
    fn what(&self) -> String {
        format!("sysctl {}", self.key)
    }
    fn phase(&self) -> Phase {
        Phase::Sysctl
    }
    fn probe(&self) -> Probe {
        Probe::Sysctl(self.key.clone())
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        if squeezed(found) == squeezed(&self.value) {
            return Ok(None);
        }
        let before = Some(squeezed(found)).filter(|f| !f.is_empty()).and_then(text);
        let part = Part::new(self.what(), before, text(self.value.clone()));
        let act = format!("sysctl -q -w {}", quote(&format!("{}={}", self.key, self.value)));
        Ok(Some(Diff::one(part, act)))
    }
}

/// A loaded kernel module (its line for the next boot is an edit of its own).
pub(super) struct KernelModule {
    pub name: String,
}

impl Item for KernelModule {
    fn what(&self) -> String {
        format!("kernel module {}", self.name)
    }
    fn phase(&self) -> Phase {
        Phase::Modules
    }
    fn probe(&self) -> Probe {
        Probe::Module(self.name.replace('-', "_"))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let part = Part::new(self.what(), None, text("loaded"));
        Ok((found.trim() != "loaded").then(|| Diff::one(part, format!("modprobe {}", quote(&self.name)))))
    }
}

/// The host's own name.
pub(super) struct Hostname(pub String);

impl Item for Hostname {
    fn what(&self) -> String {
        "hostname".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Identity
    }
    fn probe(&self) -> Probe {
        let live = "read -r h </proc/sys/kernel/hostname; f=; [ ! -r /etc/hostname ] || read -r f </etc/hostname";
        Probe::Shell(format!("{live}; echo \"$h $f\""))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let mut words = found.split_whitespace();
        let (live, file) = (words.next().unwrap_or_default(), words.next());
        if live == self.0 && file.is_none_or(|f| f == self.0) {
            return Ok(None);
        }
        let part = Part::new("hostname", text(live), text(self.0.clone()));
        // Without systemd running, by hand.
        let act = format!(
            "if [ -d /run/systemd/system ] && hostnamectl set-hostname {0} 2>/dev/null; then return 0; fi\n\
             echo {0} >/etc/hostname && hostname {0}",
            quote(&self.0)
        );
        Ok(Some(Diff::one(part, act)))
    }
}

/// The time zone.
pub(super) struct Timezone(pub String);

impl Item for Timezone {
    fn what(&self) -> String {
        "timezone".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Identity
    }
    fn probe(&self) -> Probe {
        Probe::Shell("readlink /etc/localtime 2>/dev/null || echo absent".to_owned())
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let now = found.trim().split_once("zoneinfo/").map(|(_, z)| z);
        if now == Some(self.0.as_str()) {
            return Ok(None);
        }
        let zone = format!("/usr/share/zoneinfo/{}", self.0);
        let act = format!(
            "[ ! -d /usr/share/zoneinfo ] || [ -e {z} ] || {{ echo 'no such time zone'; return 1; }}\n\
             ln -sfn {z} /etc/localtime && printf '%s\\n' {n} >/etc/timezone",
            z = quote(&zone),
            n = quote(&self.0)
        );
        Ok(Some(Diff::one(Part::new("timezone", now.and_then(text), text(self.0.clone())), act)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_compare_without_regard_to_blanks() {
        let s = Sysctl { key: "net.ipv4.tcp_rmem".into(), value: "4096 87380 6291456".into() };
        assert_eq!(s.diff("4096\t87380\t6291456\n", &Changed::new()).unwrap(), None);
        let d = s.diff("", &Changed::new()).unwrap().unwrap();
        assert_eq!(d.parts[0].before, None);
        assert_eq!(d.act, "sysctl -q -w 'net.ipv4.tcp_rmem=4096 87380 6291456'");
    }

    #[test]
    fn hostname_and_zone() {
        assert_eq!(Hostname("a".into()).diff("a a", &Changed::new()).unwrap(), None);
        assert!(Hostname("a".into()).diff("a b", &Changed::new()).unwrap().is_some());
        let z = Timezone("Europe/Berlin".into());
        assert_eq!(z.diff("/usr/share/zoneinfo/Europe/Berlin", &Changed::new()).unwrap(), None);
        assert_eq!(
            z.diff("../usr/share/zoneinfo/Etc/UTC", &Changed::new()).unwrap().unwrap().parts[0].before,
            text("Etc/UTC")
        );
    }
}
