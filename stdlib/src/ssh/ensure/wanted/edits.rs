//! The keys that edit files which others write too; one item per file.
use std::collections::BTreeMap;

use rhai::{Array, Dynamic, Map};

use crate::core::error::{OpError, OpResult};
use crate::core::options::OptionValue;

use super::super::accounts::is_account;
use super::super::edit::{Edit, EditFile, Place};
use super::super::item::Phase;
use super::super::mounts::Mount;
use super::super::specs::{EnsureOptions, LineSpec, MountSpec};
use super::values::{absolute, as_map, each, mount_point};
use super::{HEADER, Wanted, swap};

/// cloud-init writes /etc/hosts from this at every boot when it manages it (as on Proxmox).
const CLOUD_HOSTS: &str = "/etc/cloud/templates/hosts.debian.tmpl";

impl Wanted {
    pub(super) fn keys(&mut self, user: &str, keys: &[String]) -> OpResult<()> {
        if keys.is_empty() {
            return Ok(());
        }
        if !is_account(user) {
            return Err(OpError::invalid("is no plain user name"));
        }
        if keys.iter().any(|k| k.trim().is_empty() || k.trim().contains(['\n', '\r'])) {
            return Err(OpError::invalid("a key is one line, as in a `.pub` file"));
        }
        let all = self.keys.entry(user.to_owned()).or_default();
        all.extend(keys.iter().map(|k| k.trim().to_owned()));
        Ok(())
    }

    /// Everything that edits files which others write too; one item per file.
    pub(super) fn edits(&mut self, o: &EnsureOptions) -> OpResult<()> {
        let mut by_path: BTreeMap<String, Vec<Edit>> = BTreeMap::new();
        each(&o.lines, "lines", |path, v| {
            let path = absolute("lines", path)?;
            let list = if v.is_array() { Array::read(v).map_err(OpError::invalid)? } else { vec![v.clone()] };
            for entry in list {
                by_path.entry(path.clone()).or_default().push(line(&entry)?);
            }
            Ok(())
        })?;
        each(&o.mounts, "mounts", |path, v| {
            let at = mount_point(path)?;
            let line = Mount { path: at.clone(), spec: MountSpec::read(&as_map(v)?)? }.fstab_line()?;
            by_path.entry("/etc/fstab".to_owned()).or_default().push(Edit::Mount { at, line });
            Ok(())
        })?;
        if let Some(swap) = swap(o.swap.as_ref())? {
            let edit = swap.map_or(Edit::NoSwap, |s| Edit::Swap { path: s.path });
            by_path.entry("/etc/fstab".to_owned()).or_default().push(edit);
        }
        for (ip, names) in host_names(&o.hosts_entries)? {
            let edit = Edit::Names { ip, names };
            by_path.entry(CLOUD_HOSTS.to_owned()).or_default().push(edit.clone());
            by_path.entry("/etc/hosts".to_owned()).or_default().push(edit);
        }
        each(&o.limits, "limits", |domain, v| {
            for (item, value) in &as_map(v)? {
                let value = value.to_string();
                if [domain, item.as_str(), value.as_str()]
                    .iter()
                    .any(|t| t.is_empty() || t.contains(char::is_whitespace))
                {
                    return Err(OpError::invalid("domain, item and value are one word each"));
                }
                let start = format!("{domain} - {item} ");
                let edit = Edit::Line { line: format!("{start}{value}"), replaces: Some(start) };
                by_path.entry("/etc/security/limits.d/90-gpuhost.conf".to_owned()).or_default().push(edit);
            }
            Ok(())
        })?;
        for m in &o.modules {
            let edit = Edit::Line { line: m.clone(), replaces: None };
            by_path.entry("/etc/modules-load.d/gpuhost.conf".to_owned()).or_default().push(edit);
        }
        for (key, value) in &o.sysctl {
            let edit = Edit::Setting { key: key.clone(), value: value.clone() };
            by_path.entry("/etc/sysctl.d/90-gpuhost.conf".to_owned()).or_default().push(edit);
        }
        each(&o.authorized_keys, "authorized_keys", |user, v| {
            let keys =
                if v.is_string() { vec![v.to_string()] } else { Vec::<String>::read(v).map_err(OpError::invalid)? };
            self.keys(user, &keys)
        })?;
        self.add_edits(o, by_path)
    }

    fn add_edits(&mut self, o: &EnsureOptions, by_path: BTreeMap<String, Vec<Edit>>) -> OpResult<()> {
        for (path, edits) in by_path {
            if o.files.contains_key(path.as_str()) {
                return Err(OpError::invalid(format!("{path} is in `files`, and edited by another key"))
                    .hint("give it in one place: as a whole or line by line"));
            }
            let header = path.contains("gpuhost").then_some(HEADER);
            let phase = self.phase_of(&path);
            let only_existing = path == CLOUD_HOSTS;
            self.add(EditFile { place: Place::Path(path), edits, header, phase, only_existing });
        }
        for (user, keys) in std::mem::take(&mut self.keys) {
            let edits = keys.into_iter().map(|line| Edit::Line { line, replaces: None }).collect();
            let place = Place::Keys(user);
            self.add(EditFile { place, edits, header: None, phase: Phase::Files, only_existing: false });
        }
        Ok(())
    }
}

/// One entry of `lines`.
fn line(v: &Dynamic) -> OpResult<Edit> {
    let spec = if v.is_string() {
        LineSpec { line: Some(v.to_string()), replaces: None, remove: None }
    } else {
        LineSpec::read(&as_map(v)?)?
    };
    let edit = match (spec.line, spec.remove) {
        (Some(line), None) => Edit::Line { line, replaces: spec.replaces },
        (None, Some(begins)) if !begins.is_empty() => Edit::NoLine { begins },
        _ => return Err(OpError::invalid("give either `line` or `remove`")),
    };
    match &edit {
        Edit::Line { line, .. } | Edit::NoLine { begins: line } if line.contains(['\n', '\r']) => {
            Err(OpError::invalid("a line cannot hold a line break"))
        }
        _ => Ok(edit),
    }
}

/// Names by address; the map may be written either way round.
fn host_names(map: &Map) -> OpResult<BTreeMap<String, Vec<String>>> {
    let is_ip = |t: &str| t.parse::<std::net::IpAddr>().is_ok();
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    each(map, "hosts_entries", |key, v| {
        let values =
            if v.is_string() { vec![v.to_string()] } else { Vec::<String>::read(v).map_err(OpError::invalid)? };
        if is_ip(key) {
            out.entry(key.to_owned()).or_default().extend(values);
        } else if values.len() == 1 && is_ip(&values[0]) {
            out.entry(values[0].clone()).or_default().push(key.to_owned());
        } else {
            return Err(OpError::invalid("expected an address on one side"));
        }
        Ok(())
    })?;
    Ok(out)
}
