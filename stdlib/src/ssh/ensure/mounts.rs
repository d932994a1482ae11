//! Wanted mounts: what is mounted is compared with its device, kind and options; fstab's line is an edit of its own.
use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::files::unreadable;
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};
use super::specs::MountSpec;

/// Something mounted.
pub(super) struct Mount {
    pub path: String,
    pub spec: MountSpec,
}

/// Options that the kernel shows as they are given, so that they can be compared.
const SHOWN: [&str; 7] = ["ro", "rw", "noatime", "relatime", "nodev", "nosuid", "noexec"];

impl Mount {
    /// The first field of fstab: a device, a network path, or `LABEL=…`.
    ///
    /// # Errors
    /// `invalid` unless there is exactly one of device and label.
    fn source(&self) -> OpResult<String> {
        match (&self.spec.device, &self.spec.label) {
            (Some(d), None) => Ok(d.clone()),
            (None, Some(l)) => Ok(format!("LABEL={l}")),
            _ => Err(OpError::invalid("give either `device` or `label`")),
        }
    }

    /// The line in fstab.
    ///
    /// # Errors
    /// `invalid` unless there is exactly one of device and label.
    pub(super) fn fstab_line(&self) -> OpResult<String> {
        let escape = |t: &str| t.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        let s = &self.spec;
        let source = escape(&self.source()?);
        if [&source, &s.fs, &s.options].iter().any(|t| t.is_empty() || t.contains(char::is_whitespace)) {
            return Err(OpError::invalid("`device`, `fs` and `options` are one word each"));
        }
        let pass = if s.fs.starts_with("ext") { 2 } else { 0 };
        Ok(format!("{source} {} {} {} 0 {pass}", escape(&self.path), s.fs, s.options))
    }

    /// Whether what is mounted has the wanted device: only then is its name comparable.
    fn compares_device(&self) -> bool {
        !self.spec.options.split(',').any(|o| matches!(o, "bind" | "rbind"))
    }

    fn missing_options(&self, live: &str) -> Vec<String> {
        let live: Vec<&str> = live.split(',').collect();
        let wanted = self.spec.options.split(',').filter(|o| SHOWN.contains(o) && !live.contains(o));
        wanted.map(str::to_owned).collect()
    }
}

impl Item for Mount {
    fn what(&self) -> String {
        format!("mount {}", self.path)
    }
    fn phase(&self) -> Phase {
        Phase::Mounts
    }
    /// The last entry of the kernel's list for this path, then the real names of its device and of the wanted one.
    fn probe(&self) -> Probe {
        let source = self.source().unwrap_or_default();
        let escaped = self.path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        let wanted = match source.split_once('=') {
            Some(("LABEL", l)) => format!("/dev/disk/by-label/{l}"),
            Some(("UUID", u)) => format!("/dev/disk/by-uuid/{u}"),
            Some(("PARTUUID", u)) => format!("/dev/disk/by-partuuid/{u}"),
            Some(("PARTLABEL", l)) => format!("/dev/disk/by-partlabel/{l}"),
            _ => source,
        };
        // blkid finds labels where udev makes no links.
        let label = self
            .spec
            .label
            .as_ref()
            .map_or(String::new(), |l| format!("[ -e \"$w\" ] || w=$(blkid -L {} 2>/dev/null)\n", quote(l)));
        Probe::Shell(format!(
            "m=; while read -r d p f o x; do if [ \"$p\" = {} ]; then m=$d; k=$f; l=$o; fi; done </proc/self/mounts\n\
             w={}\n{label}\
             if [ -z \"$m\" ]; then echo absent; else\n\
             printf 'mounted %s %s %s\\n' \"$m\" \"$k\" \"$l\"\n\
             if [ -e \"$m\" ]; then readlink -f \"$m\"; else printf '%s\\n' \"$m\"; fi; fi\n\
             if [ -e \"$w\" ]; then readlink -f \"$w\"; else printf '%s\\n' \"$w\"; fi",
            quote(&escaped),
            quote(&wanted)
        ))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let p = quote(&self.path);
        let mut lines = found.lines();
        let first: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        let source = self.source()?;
        let [_, live, fs, options] = first.as_slice() else {
            if first.first() != Some(&"absent") {
                return Err(unreadable(&self.what(), found));
            }
            let part = Part::new(self.what(), None, text(source));
            let act = format!("{{ [ -d {p} ] || mkdir -p {p}; }} && mount {p}");
            return Ok(Some(Diff::one(part, act)));
        };
        let (real, wanted) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let plain = |t: &str| t.trim_end_matches('/').to_owned();
        let other_device = self.compares_device() && plain(real) != plain(wanted);
        // nfs is shown as nfs4; `auto` is whatever it is.
        let other_fs = !fs.starts_with(self.spec.fs.as_str()) && !matches!(self.spec.fs.as_str(), "auto" | "none");
        if other_device || other_fs {
            let part =
                Part::new(self.what(), text(format!("{live} ({fs})")), text(format!("{source} ({})", self.spec.fs)));
            // Unmounting fails while something uses it, and its words say so.
            return Ok(Some(Diff::one(part, format!("umount {p} && mount {p}"))));
        }
        let missing = self.missing_options(options);
        if missing.is_empty() {
            return Ok(None);
        }
        let part = Part::new(format!("options of {}", self.what()), text(*options), text(self.spec.options.clone()));
        let act = format!("mount -o {} {p}", quote(&format!("remount,{}", missing.join(","))));
        Ok(Some(Diff::one(part, act)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: Option<&str>, label: Option<&str>, fs: &str, options: &str) -> Mount {
        let spec = MountSpec {
            device: device.map(str::to_owned),
            label: label.map(str::to_owned),
            fs: fs.into(),
            options: options.into(),
        };
        Mount { path: "/srv/my data".into(), spec }
    }

    fn act(m: &Mount, found: &str) -> Option<String> {
        m.diff(found, &Changed::new()).unwrap().map(|d| d.act)
    }

    #[test]
    fn another_device_is_another_mount() {
        let m = mount(None, Some("data"), "ext4", "defaults,noatime");
        assert_eq!(act(&m, "mounted /dev/sdb ext4 rw,noatime\n/dev/sdb\n/dev/sdb\n"), None);
        let d = m.diff("mounted /dev/sdc ext4 rw,noatime\n/dev/sdc\n/dev/sdb\n", &Changed::new()).unwrap().unwrap();
        assert_eq!(d.act, "umount '/srv/my data' && mount '/srv/my data'");
        assert_eq!(d.parts[0].before, text("/dev/sdc (ext4)"));
        let remount = act(&m, "mounted /dev/sdb ext4 rw,relatime\n/dev/sdb\n/dev/sdb\n").unwrap();
        assert_eq!(remount, "mount -o remount,noatime '/srv/my data'");
        assert!(act(&m, "absent\n/dev/sdb\n").unwrap().ends_with("mount '/srv/my data'"));
        assert!(m.diff("", &Changed::new()).is_err());
    }

    #[test]
    fn network_and_bind_mounts() {
        let n = mount(Some("10.0.0.1:/srv/"), None, "nfs", "defaults");
        assert_eq!(act(&n, "mounted 10.0.0.1:/srv nfs4 rw\n10.0.0.1:/srv\n10.0.0.1:/srv/\n"), None);
        assert!(act(&n, "mounted 10.0.0.2:/srv nfs4 rw\n10.0.0.2:/srv\n10.0.0.1:/srv/\n").is_some());
        let b = mount(Some("/data"), None, "none", "bind,ro");
        assert_eq!(act(&b, "mounted /dev/sda1 ext4 ro\n/dev/sda1\n/data\n"), None);
        assert_eq!(n.fstab_line().unwrap(), "10.0.0.1:/srv/ /srv/my\\040data nfs defaults 0 0");
        assert!(mount(None, None, "ext4", "x").fstab_line().is_err());
        assert!(mount(Some("a"), None, "ext4", "x y").fstab_line().is_err());
    }
}
