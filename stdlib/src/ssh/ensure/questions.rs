//! The program that looks: all questions of all items, each kind answered by as few processes as possible.
use std::fmt::Write as _;

use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::{quote, words};

use super::item::{Item, Probe};
use super::program::PRELUDE;

/// Where the notes about restarts that are still owed lie: gone with a reboot, as they should be.
pub(super) const NOTES: &str = "/run/gpuhost";

/// The first boot's state without starting its Python program, which takes longer than all else here.
const CLOUD: &str = "c=absent\n\
    if [ -e /run/cloud-init/result.json ]; then c=done\n\
    elif [ -e /run/cloud-init/disabled ] || [ -e /etc/cloud/cloud-init.disabled ]; then c=disabled\n\
    elif command -v cloud-init >/dev/null 2>&1; then\n\
    c=$(cloud-init status 2>/dev/null | sed -n 's/^status: //p'); fi\n\
    echo \"${c:-unknown}\"\n";

/// Letters of what is at each path (`h` before those reached through a link), then owners, digests, contents.
/// The loops drop from `$@` what the next program would stumble over, without starting a process.
const KINDS: &str = "k=\n\
    for p in \"$@\"; do\n\
    shift\n\
    if [ -h \"$p\" ]; then k=\"${k}h\"; fi\n\
    if [ -f \"$p\" ]; then k=\"${k}f\"; elif [ -d \"$p\" ]; then k=\"${k}d\"\n\
    elif [ -e \"$p\" ]; then k=\"${k}o\"; else k=\"${k}n\"; continue; fi\n\
    set -- \"$@\" \"$p\"\n\
    done\n\
    echo \"$k\"\n";
const STAT: &str = "if [ $# -gt 0 ]; then stat -L -c '%a %U:%G %u:%g' \"$@\"; fi\n";
const SUMS: &str = "for p in \"$@\"; do shift; if [ -f \"$p\" ]; then set -- \"$@\" \"$p\"; fi; done\n\
    if [ $# -gt 0 ]; then sha256sum \"$@\"; fi\n";
const TEXTS: &str = "for p in \"$@\"; do echo '#'; if [ -f \"$p\" ]; then base64 \"$p\"; fi; done\n";

const DPKG: &str = "if command -v dpkg-query >/dev/null 2>&1; then\n\
    dpkg-query -W -f='${Package} ${db:Status-Status} ${Version}\\n${Package}:${Architecture} ${db:Status-Status} ${Version}\\n' \"$@\" 2>/dev/null\n\
    elif command -v rpm >/dev/null 2>&1; then\n\
    pn='%{NAME} installed' pa='%{NAME}.%{ARCH} installed' pv='%{VERSION}' pr='%{VERSION}-%{RELEASE}' pe='%{EPOCHNUM}'\n\
    rpm -q --qf \"$pn $pr\\n$pn $pv\\n$pn $pe:$pr\\n$pa $pr\\n$pa $pv\\n\" \"$@\" 2>/dev/null | grep ' installed '\n\
    elif command -v apk >/dev/null 2>&1; then\n\
    for p in \"$@\"; do if apk info -e \"$p\" >/dev/null 2>&1; then echo \"$p installed any\"; fi; done\n\
    else echo none; fi\n";

/// One `[ -d ]` each; the list of loaded modules only for those that are not seen there.
const MODULES: &str = "m=; for p in \"$@\"; do if [ -d \"/sys/module/$p\" ]; then echo \"$p\"; else m=1; fi; done\n\
    if [ -n \"$m\" ]; then lsmod 2>/dev/null; fi\n";

/// What stands about a path that several items may ask for.
#[derive(Default)]
struct AtPath {
    path: String,
    digest: bool,
    text: bool,
}

/// Which answer belongs to an item.
enum Answer {
    Path(usize),
    Packages,
    Sysctl(usize),
    Module(usize),
    Unit(usize),
    Shell(usize),
}

/// All questions of a list of items.
#[derive(Default)]
pub(super) struct Questions {
    paths: Vec<AtPath>,
    packages: Vec<String>,
    sysctl: Vec<String>,
    modules: Vec<String>,
    units: Vec<String>,
    shell: Vec<String>,
    answers: Vec<Answer>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// Status word of cloud-init, `absent` without it.
    pub cloud_init: String,
    /// State per item.
    pub states: Vec<String>,
}

fn number(list: &mut Vec<String>, entry: String) -> usize {
    list.iter().position(|e| *e == entry).unwrap_or_else(|| {
        list.push(entry);
        list.len() - 1
    })
}

impl Questions {
    /// The questions of `items`.
    pub(super) fn of<'a>(items: impl IntoIterator<Item = &'a dyn Item>) -> Self {
        let mut q = Questions::default();
        for item in items {
            let answer = match item.probe() {
                Probe::Path(p) => Answer::Path(q.path(p, false, false)),
                Probe::Digest(p) => Answer::Path(q.path(p, true, false)),
                Probe::Text(p) => Answer::Path(q.path(p, false, true)),
                Probe::Packages(list) => {
                    for p in list {
                        number(&mut q.packages, p);
                    }
                    Answer::Packages
                }
                Probe::Sysctl(k) => Answer::Sysctl(number(&mut q.sysctl, k)),
                Probe::Module(m) => Answer::Module(number(&mut q.modules, m)),
                Probe::Unit(u) => Answer::Unit(number(&mut q.units, u)),
                Probe::Shell(t) => {
                    q.shell.push(t);
                    Answer::Shell(q.shell.len() - 1)
                }
            };
            q.answers.push(answer);
        }
        q
    }

    fn path(&mut self, path: String, digest: bool, text: bool) -> usize {
        let i = self.paths.iter().position(|a| a.path == path).unwrap_or_else(|| {
            self.paths.push(AtPath { path, ..AtPath::default() });
            self.paths.len() - 1
        });
        self.paths[i].digest |= digest;
        self.paths[i].text |= text;
        i
    }

    fn paths_with(&self, wanted: impl Fn(&AtPath) -> bool) -> Vec<&str> {
        self.paths.iter().filter(|a| wanted(a)).map(|a| a.path.as_str()).collect()
    }

    /// Sections in the order in which the program prints them: name and shell text.
    fn sections(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = vec![("cloud".into(), CLOUD.into())];
        let mut add = |name: &str, text: String| out.push((name.to_owned(), text));
        let args = |list: &[&str], text: &str| format!("set -- {}\n{text}", words(list));
        if !self.paths.is_empty() {
            add("kinds", args(&self.paths_with(|_| true), KINDS));
            add("stat", STAT.to_owned());
        }
        let digests = self.paths_with(|a| a.digest);
        if !digests.is_empty() {
            add("sums", args(&digests, SUMS));
        }
        let texts = self.paths_with(|a| a.text);
        if !texts.is_empty() {
            add("texts", args(&texts, TEXTS));
        }
        let list = |l: &[String]| words(l.iter());
        if !self.packages.is_empty() {
            add("packages", format!("set -- {}\n{DPKG}", list(&self.packages)));
        }
        if !self.sysctl.is_empty() {
            add("sysctl", format!("sysctl {} 2>/dev/null\n", list(&self.sysctl)));
        }
        if !self.modules.is_empty() {
            add("modules", format!("set -- {}\n{MODULES}", list(&self.modules)));
        }
        if !self.units.is_empty() {
            let units = list(&self.units);
            add(
                "units",
                format!(
                    "systemctl show -p LoadState -p ActiveState -p UnitFileState -p NeedDaemonReload {units} 2>/dev/null\n"
                ),
            );
            add(
                "owed",
                format!(
                    "for u in {units}; do if [ -e \"{NOTES}/restart.$u\" ]; then printf '%s\\n' \"$u\"; fi; done\n"
                ),
            );
        }
        for (i, text) in self.shell.iter().enumerate() {
            add(&format!("shell{i}"), format!("{text}\n"));
        }
        out
    }

    /// The program.
    pub(super) fn program(&self) -> String {
        let mut out = String::from(PRELUDE);
        for (name, text) in self.sections() {
            let _ = writeln!(out, "printf '\\n@{name}\\n'\n{}", text.trim_end());
        }
        out.push_str("printf '\\n@end\\n'\n");
        out
    }

    /// Reads what the program printed (from its first section on; what stands before is not ours).
    ///
    /// # Errors
    /// `failed` when it did not come to its end.
    pub(super) fn read(&self, stdout: &str) -> OpResult<Found> {
        let sections = self.sections();
        let mut texts: Vec<String> = Vec::with_capacity(sections.len());
        let mut rest = stdout;
        let names = sections.iter().map(|(n, _)| n.as_str()).chain(["end"]);
        for name in names {
            let mark = format!("\n@{name}\n");
            // Names come in order, so a state that looks like a mark of another section is still a state.
            let at = rest.find(&mark).ok_or_else(|| broken(stdout))?;
            texts.push(rest[..at].to_owned());
            rest = &rest[at + mark.len()..];
        }
        // The first text is what stood before the first mark.
        let of = |name: &str| {
            sections.iter().position(|(n, _)| n == name).and_then(|i| texts.get(i + 1)).map_or("", String::as_str)
        };
        let paths = self.read_paths(of("kinds"), of("stat"), of("sums"), of("texts")).ok_or_else(|| broken(stdout))?;
        let units = read_units(of("units"), of("owed"), &self.units);
        let states = self
            .answers
            .iter()
            .map(|a| match a {
                Answer::Path(i) => paths[*i].clone(),
                Answer::Packages => of("packages").to_owned(),
                Answer::Sysctl(i) => sysctl_value(of("sysctl"), &self.sysctl[*i]),
                Answer::Module(i) => loaded(of("modules"), &self.modules[*i]),
                Answer::Unit(i) => units[*i].clone(),
                Answer::Shell(i) => of(&format!("shell{i}")).to_owned(),
            })
            .collect();
        Ok(Found { cloud_init: of("cloud").trim().to_owned(), states })
    }

    /// One line per path: `KIND [MODE NAMES IDS] [DIGEST] [BASE64]`.
    fn read_paths(&self, kinds: &str, stats: &str, sums: &str, texts: &str) -> Option<Vec<String>> {
        let mut letters = kinds.trim().chars();
        let mut stats = stats.lines();
        let mut sums = sums.lines().map(|l| l.trim_start_matches('\\').split(' ').next().unwrap_or_default());
        let mut texts = texts.split('#').skip(1);
        let mut out = Vec::new();
        for at in &self.paths {
            let mut letter = letters.next()?;
            let mut line = String::new();
            if letter == 'h' {
                line.push_str("link-");
                letter = letters.next()?;
            }
            line.push_str(match letter {
                'f' => "file",
                'd' => "dir",
                'o' => "other",
                _ => "absent",
            });
            if letter != 'n' {
                line.push(' ');
                line.push_str(stats.next()?);
            }
            if at.digest && letter == 'f' {
                line.push(' ');
                line.push_str(sums.next()?);
            }
            if at.text {
                let text = texts.next()?;
                if letter == 'f' {
                    line.push(' ');
                    line.extend(text.chars().filter(|c| !c.is_whitespace()));
                }
            }
            out.push(line);
        }
        // What is left over was meant for another path.
        (letters.next().is_none() && stats.next().is_none()).then_some(out)
    }
}

fn broken(stdout: &str) -> OpError {
    let e = OpError::failed("the program that compares the host's state did not finish");
    match stdout.lines().rev().find(|l| !l.trim().is_empty()) {
        Some(l) => e.last_seen(l.chars().take(120).collect::<String>()),
        None => e,
    }
}

/// `key = value`; dots and slashes in the key may be exchanged.
fn sysctl_value(text: &str, key: &str) -> String {
    let same = |a: &str| a == key || a.replace('/', ".") == key.replace('/', ".");
    let line = text.lines().filter_map(|l| l.split_once('=')).find(|(k, _)| same(k.trim()));
    line.map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
}

fn loaded(text: &str, name: &str) -> String {
    let seen = text.lines().any(|l| l.split_whitespace().next() == Some(name));
    if seen { "loaded".to_owned() } else { String::new() }
}

/// Blocks of `systemctl show`, in the order of the units, with an empty line between.
fn read_units(text: &str, owed: &str, units: &[String]) -> Vec<String> {
    let blocks: Vec<&str> = text.split("\n\n").map(str::trim).collect();
    let get = |block: &str, key: &str| -> String {
        block.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    units
        .iter()
        .enumerate()
        .map(|(i, unit)| {
            let block = blocks.get(i).copied().unwrap_or_default();
            let or = |v: String, other: &str| if v.is_empty() { other.to_owned() } else { v };
            let mut line = or(get(block, "ActiveState"), "unknown");
            line.push(' ');
            line.push_str(&or(get(block, "UnitFileState"), "absent"));
            if get(block, "NeedDaemonReload") == "yes" {
                line.push_str(" reload");
            }
            if owed.lines().any(|l| l == unit) {
                line.push_str(" restart");
            }
            line
        })
        .collect()
}

/// Where it is noted, as a shell word, that a unit is owed a restart.
pub(super) fn note(unit: &str) -> String {
    quote(&format!("{NOTES}/restart.{unit}"))
}

#[cfg(test)]
mod tests {
    use super::super::item::{Changed, Diff, Phase};
    use super::*;

    struct One(Probe);
    impl Item for One {
        fn what(&self) -> String {
            "x".into()
        }
        fn phase(&self) -> Phase {
            Phase::Files
        }
        fn probe(&self) -> Probe {
            self.0.clone()
        }
        fn diff(&self, _: &str, _: &Changed) -> OpResult<Option<Diff>> {
            Ok(None)
        }
    }

    fn questions(list: &[Probe]) -> Questions {
        let items: Vec<One> = list.iter().map(|p| One(p.clone())).collect();
        Questions::of(items.iter().map(|i| i as &dyn Item))
    }

    #[test]
    fn answers_find_their_items() {
        let q = questions(&[
            Probe::Path("/a".into()),
            Probe::Digest("/b".into()),
            Probe::Text("/b".into()),
            Probe::Sysctl("net.ipv4.ip_forward".into()),
            Probe::Unit("chrony.service".into()),
            Probe::Unit("gone.service".into()),
            Probe::Module("br_netfilter".into()),
            Probe::Shell("echo x".into()),
            Probe::Path("/d".into()),
        ]);
        let out = "\n@cloud\ndone\n\n@kinds\nnhffd\n\n@stat\n644 root:root 0:0\n755 root:root 0:0\n\n@sums\nabc  /b\n\n\
                   @texts\n#\naGV\nsbG8=\n\n@sysctl\nnet.ipv4.ip_forward = 1\n\n@modules\nbr_netfilter 1 0\n\n\
                   @units\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=yes\n\n\
                   LoadState=not-found\nActiveState=inactive\nUnitFileState=\nNeedDaemonReload=no\n\n@owed\n\
                   gone.service\n\n@shell0\n@end\n\n@end\n";
        assert!(q.read(out).is_err(), "kinds that do not fit are noticed");
        let out = out.replace("nhffd", "nhfd");
        let found = q.read(&out).unwrap();
        assert_eq!(found.cloud_init, "done");
        assert_eq!(
            found.states,
            [
                "absent",
                "link-file 644 root:root 0:0 abc aGVsbG8=",
                "link-file 644 root:root 0:0 abc aGVsbG8=",
                "1",
                "active enabled reload",
                "inactive absent restart",
                "loaded",
                "@end\n",
                "dir 755 root:root 0:0",
            ]
        );
        assert!(q.read(&out[..out.len() - 3]).is_err());
    }

    #[test]
    fn a_thing_that_several_ask_for_is_looked_at_once() {
        let q = questions(&[Probe::Path("/a".into()), Probe::Digest("/a".into()), Probe::Path("/a".into())]);
        assert_eq!(q.program().matches(" /a\n").count(), 2, "{}", q.program());
    }
}
