//! Wanted services.
use crate::core::error::OpResult;
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

/// A systemd unit's state.
pub(super) struct Service {
    pub name: String,
    pub running: bool,
    pub enabled: Option<bool>,
    /// Paths whose change restarts it.
    pub restart_on: Vec<String>,
}

/// States of `systemctl is-enabled` that cannot or need not be enabled.
const FIXED: [&str; 6] = ["static", "indirect", "generated", "alias", "transient", "enabled-runtime"];

impl Service {
    /// A name without a kind is that of a service.
    pub(super) fn unit(&self) -> String {
        if self.name.contains('.') { self.name.clone() } else { format!("{}.service", self.name) }
    }

    fn has_changed(&self, changed: &Changed) -> bool {
        let own = format!("/etc/systemd/system/{}", self.unit());
        let drop_ins = format!("{own}.d/");
        changed.iter().any(|p| *p == own || p.starts_with(&drop_ins) || self.restart_on.contains(p))
    }
}

/// Names that systemctl takes as they are: no options, no patterns.
pub(super) fn is_unit_name(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b":-_.@\\".contains(&b);
    !name.is_empty() && !name.starts_with(['-', '.']) && name.bytes().all(ok)
}

impl Item for Service {
    fn what(&self) -> String {
        format!("service {}", self.name)
    }
    fn phase(&self) -> Phase {
        Phase::Services
    }
    fn probe(&self) -> Probe {
        Probe::Unit(self.unit())
    }
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>> {
        let mut words = found.split_whitespace();
        let (active, enabled) = (words.next().unwrap_or("unknown"), words.next().unwrap_or("absent"));
        let owed = words.any(|w| w == "restart");
        let runs = matches!(active, "active" | "activating" | "reloading");
        let n = quote(&self.name);
        let mut parts = Vec::new();
        let mut act = Vec::new();
        let mut restarts = false;
        match self.enabled {
            Some(true) if enabled != "enabled" && !FIXED.contains(&enabled) => {
                parts.push(Part::new(format!("{} at boot", self.what()), text(enabled), text("enabled")));
                act.push(format!("systemctl enable {n}"));
            }
            Some(false) if matches!(enabled, "enabled" | "enabled-runtime") => {
                parts.push(Part::new(format!("{} at boot", self.what()), text(enabled), text("disabled")));
                act.push(format!("systemctl disable {n}"));
            }
            _ => {}
        }
        match (self.running, runs) {
            (true, false) => {
                parts.push(Part::new(self.what(), text(active), text("running")));
                // A unit that ran into its start limit stays down otherwise.
                let reset = if active == "failed" { format!("systemctl reset-failed {n}; ") } else { String::new() };
                act.push(format!("{{ {reset}systemctl start {n}; }}"));
            }
            (false, true) => {
                parts.push(Part::new(self.what(), text(active), text("stopped")));
                act.push(format!("systemctl stop {n}"));
            }
            (true, true) if owed || self.has_changed(changed) => {
                parts.push(Part::new(self.what(), text("running"), text("restarted")));
                act.push(format!("systemctl restart {n}"));
                restarts = true;
            }
            _ => {}
        }
        let mut diff = Diff::of(parts, act.join(" && "));
        diff.restarts = restarts.then(|| self.unit());
        Ok((!diff.parts.is_empty()).then_some(diff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svc(running: bool) -> Service {
        Service { name: "chrony".into(), running, enabled: Some(running), restart_on: vec!["/etc/chrony.conf".into()] }
    }

    #[test]
    fn states() {
        let none = Changed::new();
        assert_eq!(svc(true).diff("active enabled", &none).unwrap(), None);
        assert_eq!(svc(true).diff("active static", &none).unwrap(), None);
        assert_eq!(svc(true).diff("active enabled reload", &none).unwrap(), None);
        assert_eq!(svc(false).diff("inactive disabled", &none).unwrap(), None);
        assert_eq!(svc(false).diff("unknown absent", &none).unwrap(), None);
        let d = svc(true).diff("failed disabled", &none).unwrap().unwrap();
        assert_eq!(d.act, "systemctl enable chrony && { systemctl reset-failed chrony; systemctl start chrony; }");
        let d = svc(false).diff("active enabled", &none).unwrap().unwrap();
        assert_eq!(d.act, "systemctl disable chrony && systemctl stop chrony");
    }

    #[test]
    fn a_changed_file_restarts_a_running_service() {
        let changed = Changed::from(["/etc/chrony.conf".to_owned()]);
        let d = svc(true).diff("active enabled", &changed).unwrap().unwrap();
        assert_eq!(d.act, "systemctl restart chrony");
        let owed = svc(true).diff("active enabled restart", &Changed::new()).unwrap().unwrap();
        assert_eq!(owed, d, "a run that died before its restart left a note");
        let unit = Changed::from(["/etc/systemd/system/chrony.service".to_owned()]);
        assert!(svc(true).diff("active enabled", &unit).unwrap().is_some());
        assert!(svc(false).diff("inactive disabled", &unit).unwrap().is_none());
    }
}
