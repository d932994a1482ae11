//! The ownership marker in a VM's description, and the pure rule that decides whose a VM is.
use std::fmt;

use serde::{Deserialize, Serialize};

const OPEN: &str = "<!-- gpuhost ";
const CLOSE: &str = " -->";

/// What the marker says. It is a parameter of create and clone: a VM that is complete is never without it, one that is
/// being made carries a lock instead. The SMBIOS uuid follows as soon as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Format.
    pub v: u32,
    /// UUID of the site.
    pub site: String,
    /// Name of the site's node (or template).
    pub node: String,
    /// The id the VM was made with.
    pub vmid: u32,
    /// Made once per creation.
    pub id: String,
    /// SMBIOS uuid that Proxmox gave the VM: a clone gets another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smbios: Option<String>,
    /// `template`, or `data` for a VM that only keeps a data disk; absent for a node's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

impl Marker {
    /// A marker for a VM that is about to be made.
    #[must_use]
    pub fn new(site: &str, node: &str, vmid: u32, id: &str) -> Self {
        Marker { v: 1, site: site.to_owned(), node: node.to_owned(), vmid, id: id.to_owned(), smbios: None, kind: None }
    }

    /// The line as it stands in the description.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{OPEN}{}{CLOSE}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Finds the marker in a description; `Err` when something that begins like one cannot be read.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn find(description: &str) -> Result<Option<Marker>, String> {
        let Some(at) = description.find(OPEN) else { return Ok(None) };
        let rest = &description[at + OPEN.len()..];
        let end = rest.find(CLOSE.trim_start()).ok_or("the marker line is cut off")?;
        let m: Marker = serde_json::from_str(rest[..end].trim()).map_err(|e| e.to_string())?;
        if description[at + OPEN.len() + end..].contains(OPEN) {
            return Err("there are two marker lines".to_owned());
        }
        Ok(Some(m))
    }

    /// The description with this marker in it; the user's own text stays as it is.
    #[must_use]
    pub fn put_into(&self, description: &str) -> String {
        let line = self.line();
        let Some(at) = description.find(OPEN) else {
            let own = description.trim_end();
            return if own.is_empty() { line } else { format!("{own}\n\n{line}") };
        };
        let rest = &description[at..];
        let end = rest.find("-->").map_or(rest.len(), |e| e + 3);
        format!("{}{line}{}", &description[..at], &rest[end..]).trim_end().to_owned()
    }
}

/// Whose a VM is. Only `Own` may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    /// Made by this site and where it should be.
    Own,
    /// Carries our marker but is another VM: a clone, or a restored backup.
    Copy,
    /// Made by this site, but renamed, migrated, or taken out of the pool.
    Moved,
    /// Somebody else's.
    Foreign,
    /// Cannot be told: hidden from this token, or its marker is damaged.
    Unknown,
}

impl Ownership {
    /// The word that scripts see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Ownership::Own => "own",
            Ownership::Copy => "copy",
            Ownership::Moved => "moved",
            Ownership::Foreign => "foreign",
            Ownership::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a VM of the site should be. `None` means: any.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// UUID of the site.
    pub site: &'a str,
    /// The site's pool.
    pub pool: &'a str,
    /// Name of the node that the VM should be.
    pub node: Option<&'a str>,
    /// Hypervisor node that the site file names.
    pub pve_node: Option<&'a str>,
}

/// What was seen of a VM.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its id.
    pub vmid: u32,
    /// Its name.
    pub name: &'a str,
    /// The hypervisor node it is on.
    pub pve_node: &'a str,
    /// Its pool.
    pub pool: Option<&'a str>,
    /// Its description.
    pub description: &'a str,
    /// Its SMBIOS uuid.
    pub smbios: Option<&'a str>,
}

/// The verdict and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whose it is.
    pub ownership: Ownership,
    /// What was seen, as a clause.
    pub why: String,
    /// What to do about it; empty for `Own`.
    pub hint: String,
    /// The marker, when it could be read.
    pub marker: Option<Marker>,
}

/// The verdict about a VM whose id is taken but which this token cannot see.
#[must_use]
pub fn hidden(vmid: u32) -> Verdict {
    Verdict {
        ownership: Ownership::Unknown,
        why: format!("id {vmid} is taken by a VM that this token cannot see"),
        hint: format!("grant the token VM.Audit on /vms/{vmid}, or give the node another vmid in the site file"),
        marker: None,
    }
}

/// Decides whose a VM is. Pure: the same facts give the same verdict.
#[must_use]
pub fn judge(want: Expected<'_>, seen: Seen<'_>) -> Verdict {
    let Seen { vmid, name, .. } = seen;
    let verdict =
        |ownership, why: String, hint: String, marker: Option<Marker>| Verdict { ownership, why, hint, marker };
    let marker = match Marker::find(seen.description) {
        Ok(Some(m)) => m,
        Ok(None) if seen.pool == Some(want.pool) => {
            return verdict(
                Ownership::Unknown,
                format!("VM {vmid} `{name}` is in pool `{}` but its notes carry no gpuhost marker", want.pool),
                "put the marker line back from a backup of the notes, or move the VM out of the pool".to_owned(),
                None,
            );
        }
        Ok(None) => {
            return verdict(
                Ownership::Foreign,
                format!("VM {vmid} `{name}` was not made by gpuhost"),
                "give the node another vmid in the site file".to_owned(),
                None,
            );
        }
        Err(why) => {
            return verdict(
                Ownership::Unknown,
                format!("the gpuhost marker in the notes of VM {vmid} `{name}` cannot be read: {why}"),
                "repair the marker line in the VM's notes".to_owned(),
                None,
            );
        }
    };
    let m = Some(marker.clone());
    if marker.site != want.site {
        return verdict(
            Ownership::Foreign,
            format!("VM {vmid} `{name}` belongs to the site with UUID {}", marker.site),
            "give the node another vmid in the site file, or use that site's file".to_owned(),
            m,
        );
    }
    if marker.vmid != vmid {
        return verdict(
            Ownership::Copy,
            format!("VM {vmid} `{name}` is a copy of VM {} (a clone or a restored backup)", marker.vmid),
            "remove the marker line from its notes to keep it as your own VM".to_owned(),
            m,
        );
    }
    if let (Some(a), Some(b)) = (&marker.smbios, seen.smbios)
        && !a.eq_ignore_ascii_case(b)
    {
        return verdict(
            Ownership::Copy,
            format!("VM {vmid} `{name}` carries a marker of another machine (SMBIOS uuid {b}, marker {a})"),
            "remove the marker line from its notes to keep it as your own VM".to_owned(),
            m,
        );
    }
    judge_place(want, seen, marker)
}

/// The rest of the rule: it is ours; is it where it should be?
fn judge_place(want: Expected<'_>, seen: Seen<'_>, marker: Marker) -> Verdict {
    let Seen { vmid, name, pve_node, .. } = seen;
    let moved = |why: String, hint: String| (Ownership::Moved, why, hint);
    let (ownership, why, hint) = if let Some(node) = want.node.filter(|n| *n != marker.node) {
        moved(
            format!("VM {vmid} was made as node `{}`, not as `{node}`", marker.node),
            "names and vmids of existing nodes do not change: restore them in the site file".to_owned(),
        )
    } else if name != marker.node {
        moved(
            format!("VM {vmid} was made as `{}` and is now called `{name}`", marker.node),
            format!("rename it back: `qm set {vmid} --name {}`", marker.node),
        )
    } else if seen.pool != Some(want.pool) {
        let now = seen.pool.map_or_else(|| "in no pool".to_owned(), |p| format!("in pool `{p}`"));
        moved(
            format!("VM {vmid} `{name}` is {now} instead of `{}`", want.pool),
            format!("move it back: `pvesh set /pools --poolid {} --vms {vmid} --allow-move 1`", want.pool),
        )
    } else if let Some(p) = want.pve_node.filter(|p| *p != pve_node) {
        moved(
            format!("VM {vmid} `{name}` is on hypervisor node `{pve_node}`, the site file says `{p}`"),
            format!("set `pve_node = \"{pve_node}\"` for it in the site file, or migrate it back"),
        )
    } else {
        (Ownership::Own, format!("VM {vmid} `{name}` was made by this site"), String::new())
    };
    Verdict { ownership, why, hint, marker: Some(marker) }
}

#[cfg(test)]
#[path = "marker_tests.rs"]
mod tests;
