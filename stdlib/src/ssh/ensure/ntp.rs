//! Wanted time servers, for whichever of chrony and systemd-timesyncd the host has.
use crate::core::error::OpResult;
use crate::ssh::quote::quote;

use super::files::unreadable;
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};
use super::questions::NOTES;
use super::wanted::HEADER;
use crate::ssh::digest;

/// Sets `k` (which daemon), `f` (our file) and `u` (the unit). Where chrony is, it is the one.
const DETECT: &str = "k=none; f=; u=\n\
    for d in /usr/lib/systemd/system /lib/systemd/system; do\n\
    if [ -e $d/chrony.service ]; then k=chrony; u=chrony; break; fi\n\
    if [ -e $d/chronyd.service ]; then k=chrony; u=chronyd; break; fi\n\
    if [ -e $d/systemd-timesyncd.service ]; then k=timesyncd; u=systemd-timesyncd; fi; done\n\
    case $k in chrony) f=/etc/chrony/sources.d/gpuhost.sources;;\n\
    timesyncd) f=/etc/systemd/timesyncd.conf.d/gpuhost.conf;; esac";

/// Time servers.
pub(super) struct Ntp {
    pub servers: Vec<String>,
}

impl Ntp {
    fn content(&self, kind: &str) -> String {
        match kind {
            "chrony" => {
                let lines = self.servers.iter().map(|s| format!("server {s} iburst\n"));
                format!("{HEADER}\n{}", lines.collect::<String>())
            }
            _ => format!("{HEADER}\n[Time]\nNTP={}\n", self.servers.join(" ")),
        }
    }
}

impl Item for Ntp {
    fn what(&self) -> String {
        "time servers".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Services
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!(
            "{DETECT}\n\
             if [ $k != none ]; then\n\
             s=absent; [ ! -f \"$f\" ] || s=$(sha256sum <\"$f\")\n\
             a=$(systemctl is-active $u 2>/dev/null); e=$(systemctl is-enabled $u 2>/dev/null)\n\
             [ ! -e {NOTES}/restart.ntp ] || a=owed\n\
             echo \"$k ${{s%% *}} ${{a:-unknown}} ${{e:-absent}}\"\n\
             else echo none; fi"
        ))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let words: Vec<&str> = found.split_whitespace().collect();
        let before = match words.as_slice() {
            ["none"] => None,
            [kind, sum, active, enabled, ..] => {
                let right = *sum == digest(self.content(kind).as_bytes());
                if right && *active == "active" && *enabled == "enabled" {
                    return Ok(None);
                }
                text(if right { format!("{kind} is {active}, {enabled}") } else { format!("others of {kind}") })
            }
            _ => return Err(unreadable(&self.what(), found)),
        };
        let act = format!(
            "{DETECT}\nmkdir -p {NOTES} && true >{NOTES}/restart.ntp\n\
             case $k in\n\
             chrony) put \"$f\" 0644 '' {} || return 1\n\
             [ ! -e /etc/chrony.conf ] || grep -qxF 'sourcedir /etc/chrony/sources.d' /etc/chrony.conf || \
             echo 'sourcedir /etc/chrony/sources.d' >>/etc/chrony.conf;;\n\
             timesyncd) put \"$f\" 0644 '' {} || return 1;;\n\
             *) echo 'neither chrony nor systemd-timesyncd is installed'; return 1;; esac\n\
             systemctl enable $u && systemctl restart $u && rm -f {NOTES}/restart.ntp",
            quote(&self.content("chrony")),
            quote(&self.content("timesyncd"))
        );
        Ok(Some(Diff::one(Part::new(self.what(), before, text(self.servers.join(" "))), act)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_daemon_has_its_own_file() {
        let n = Ntp { servers: vec!["10.0.0.1".into(), "10.0.0.2".into()] };
        let none = Changed::new();
        let sum = digest(n.content("chrony").as_bytes());
        assert_eq!(n.diff(&format!("chrony {sum} active enabled\n"), &none).unwrap(), None);
        assert!(n.diff(&format!("timesyncd {sum} active enabled\n"), &none).unwrap().is_some());
        assert!(n.diff(&format!("chrony {sum} owed enabled\n"), &none).unwrap().is_some());
        assert_eq!(n.diff("none\n", &none).unwrap().unwrap().parts[0].before, None);
        assert!(n.diff("", &none).is_err());
    }
}
