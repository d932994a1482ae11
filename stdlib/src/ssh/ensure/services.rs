//! Wanted services.
use crate::core::error::OpResult;
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, text};

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
    fn must_restart(&self, changed: &Changed) -> bool {
        let unit = if self.name.contains('.') { self.name.clone() } else { format!("{}.service", self.name) };
        let own = format!("/etc/systemd/system/{unit}");
        let drop_ins = format!("{own}.d/");
        changed.iter().any(|p| *p == own || p.starts_with(&drop_ins) || self.restart_on.contains(p))
    }
}

impl Item for Service {
    fn what(&self) -> String {
        format!("service {}", self.name)
    }
    fn phase(&self) -> Phase {
        Phase::Services
    }
    fn look(&self) -> String {
        let n = quote(&self.name);
        format!(
            "a=$(systemctl is-active {n} 2>/dev/null); e=$(systemctl is-enabled {n} 2>/dev/null)\n\
             echo \"${{a:-unknown}} ${{e:-absent}}\""
        )
    }
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>> {
        let mut words = found.split_whitespace();
        let (active, enabled) = (words.next().unwrap_or("unknown"), words.next().unwrap_or("absent"));
        let runs = matches!(active, "active" | "activating" | "reloading");
        let n = quote(&self.name);
        let mut parts = Vec::new();
        let mut act = Vec::new();
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
            (true, true) if self.must_restart(changed) => {
                parts.push(Part::new(self.what(), text("running"), text("restarted")));
                act.push(format!("systemctl restart {n}"));
            }
            _ => {}
        }
        Ok((!parts.is_empty()).then(|| Diff { parts, act: act.join(" && "), path: None }))
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
        let unit = Changed::from(["/etc/systemd/system/chrony.service".to_owned()]);
        assert!(svc(true).diff("active enabled", &unit).unwrap().is_some());
        assert!(svc(false).diff("inactive disabled", &unit).unwrap().is_none());
    }
}
