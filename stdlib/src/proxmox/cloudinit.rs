//! Cloud-init data: what the drive carries, what the config would write on it, and when the guest takes it over.
//!
//! Proxmox writes the drive when it starts a machine, so a change of the config of a running one leaves the old data on
//! it: `GET cloudinit` compares the two, `cloudinit/dump` gives the texts that the config makes. The instance-id is made
//! of those texts: a new one makes cloud-init run again, as on a new machine.
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::wire::pve::props;

use super::diff::{Diff, keys_shown};
use super::ensure_vm::{CONFIG, Job};
use super::error::{ApiError, Fault};
use super::inventory::{Machine, is_on};
use super::request::{self, At};
use super::types::Proxmox;

/// A setting whose value on the drive is not the config's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Late {
    /// Config key.
    pub key: String,
    /// What the drive carries; `None` when it has nothing, or Proxmox does not tell.
    pub on_drive: Option<String>,
    /// What the config says; `None` when the key is gone.
    pub wanted: Option<String>,
}

/// What the config makes of the drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seed {
    user: String,
    network: String,
    id: String,
}

/// How far new data has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The machine is off: its start writes the drive.
    Off,
    /// The drive of a running machine has the old data.
    Late,
    /// The drive has it, the guest has not read it.
    Written,
    /// The machine is restarted for it.
    Restarted,
}

/// Rows of `GET cloudinit` that tell a difference.
pub(super) fn late(rows: &Value) -> Vec<Late> {
    let text = |v: &Value| match v {
        Value::Null => None,
        Value::String(s) => Some(s.clone()),
        other => Some(other.to_string()),
    };
    let of = |row: &Value| {
        let gone = row.get("delete").is_some_and(is_on);
        let wanted = text(&row["pending"]).filter(|_| !gone);
        let key = row["key"].as_str().filter(|_| gone || wanted.is_some())?;
        Some(Late { key: key.to_owned(), on_drive: text(&row["value"]), wanted })
    };
    rows.as_array().into_iter().flatten().filter_map(of).collect()
}

fn shown(key: &str, value: &str) -> String {
    if key == "sshkeys" { keys_shown(value) } else { value.to_owned() }
}

impl Late {
    fn change(&self, node: &str) -> Change {
        let side = |v: &Option<String>| v.as_deref().map(|v| Value::from(shown(&self.key, v)));
        let what = format!("cloud-init drive: {}", self.key);
        let masked = self.on_drive.is_some() && self.on_drive == self.wanted;
        let after = if masked { Some("another one".into()) } else { side(&self.wanted) };
        Change::new(node, what, side(&self.on_drive), after)
    }
}

impl Seed {
    /// The difference of the texts, without passwords.
    fn diff(&self, new: &Seed) -> Option<String> {
        let open = |t: &str| {
            let hide =
                |l: &str| if l.starts_with("password:") { "password: ***\n".to_owned() } else { format!("{l}\n") };
            t.lines().map(hide).collect::<String>()
        };
        let part = |what: &str, old: &str, new: &str| {
            let diff = crate::ssh::textdiff::unified(&open(old), &open(new));
            if diff.is_empty() { diff } else { format!("cloud-init {what}\n{diff}") }
        };
        let all =
            [part("user-data", &self.user, &new.user), part("network-config", &self.network, &new.network)].concat();
        (!all.is_empty()).then_some(all)
    }
}

/// What the next boot makes of new data.
fn effect(old: Option<&Seed>, new: Option<&Seed>) -> String {
    match (old, new) {
        (Some(old), Some(new)) if old.id == new.id => format!(
            "the instance-id stays ({}), so what cloud-init does once per instance (users, keys, packages) is not done \
             again before `cloud-init clean` in the guest",
            new.id
        ),
        (Some(old), Some(new)) => format!(
            "cloud-init runs again then, as on a new instance (instance-id {} -> {}), and host keys may change",
            old.id, new.id
        ),
        (None, Some(new)) => format!(
            "cloud-init runs again then, as on a new instance, unless the guest has seen instance-id {}, and host keys \
             may change",
            new.id
        ),
        (_, None) => "cloud-init runs again then, as on a new instance, and host keys may change".to_owned(),
    }
}

/// What is said of new data.
pub(super) fn told(node: &str, keys: &[String], stage: Stage, old: Option<&Seed>, new: Option<&Seed>) -> String {
    let (keys, effect) = (keys.join(", "), effect(old, new));
    match stage {
        Stage::Off => format!("{node}: {keys} changed, and the next start writes the cloud-init drive: {effect}"),
        Stage::Written => {
            format!(
                "{node}: {keys} changed, and the cloud-init drive has it: the guest takes it over at its next boot; {effect}"
            )
        }
        Stage::Restarted => format!("{node}: {keys} changed: the machine is restarted for it; {effect}"),
        Stage::Late => format!(
            "{node}: {keys} changed, and the cloud-init drive of the running machine has the old data: its next start by \
             Proxmox writes the new; {effect}. Now: `restart: true`; for a reboot inside the guest: `regenerate: true`"
        ),
    }
}

impl Machine {
    /// Whether it has a cloud-init drive.
    pub(super) fn has_cloud_init(&self) -> bool {
        self.config.iter().any(|(k, v)| props::is_drive(k) && v.as_str().is_some_and(|t| t.contains("cloudinit")))
    }
}

impl Job<'_> {
    /// What the drive of a machine does not have yet; `None` when this Proxmox cannot compare.
    pub(super) async fn late(&self, m: &Machine) -> OpResult<Option<Vec<Late>>> {
        if !m.has_cloud_init() {
            return Ok(Some(Vec::new()));
        }
        match self.pve.send(self.ctx(), &request::cloud_init(&m.at)).await {
            Ok(rows) => Ok(Some(late(&rows))),
            Err(e) if e.is(&Fault::NotImplemented) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What the config makes of the drive now; `None`, with a word, when Proxmox cannot make it.
    pub(super) async fn seed(&self, at: &At) -> Option<Seed> {
        let dump = async |kind: &str| -> Result<String, ApiError> {
            let text = self.pve.send(self.ctx(), &request::cloud_init_dump(at, kind)).await?;
            Ok(text.as_str().unwrap_or_default().to_owned())
        };
        let read = async {
            let (user, network, meta) = (dump("user").await?, dump("network").await?, dump("meta").await?);
            let id = meta.lines().find_map(|l| l.trim().strip_prefix("instance-id:")).map(|i| i.trim().to_owned());
            Ok::<_, ApiError>(Seed { user, network, id: id.unwrap_or_else(|| "of its own".to_owned()) })
        };
        match read.await {
            Ok(seed) => Some(seed),
            Err(e) => {
                let text = format!("{}: what its cloud-init data becomes cannot be shown: {}", self.node.name, e.text);
                self.ctx().message("warn", text);
                None
            }
        }
    }

    /// Shows what a written config makes of the drive.
    pub(super) fn show_seed(&self, old: Option<&Seed>, new: Option<&Seed>) {
        if let Some(diff) = old.zip(new).and_then(|(old, new)| old.diff(new)) {
            self.s.output("diff", diff.trim_end());
        }
    }

    /// Writes the drive of a running machine anew.
    pub(super) async fn regenerate(&self, m: &Machine, late: &[Late]) -> OpResult<()> {
        let changes = late.iter().map(|l| l.change(&self.node.name)).collect();
        let marker = m.marker().map(|k| k.line()).unwrap_or_default();
        let r = request::regenerate(&m.at);
        self.s.act(marker, changes, self.pve.change(self.s, "the cloud-init drive", &r, CONFIG)).await
    }

    /// Says what becomes of new data, whether it was written by this run or waits since an earlier one.
    pub(super) fn tell_seed(
        &self,
        d: &Diff,
        late: Option<&[Late]>,
        stage: Stage,
        old: Option<&Seed>,
        new: Option<&Seed>,
    ) {
        let mut keys = d.boot.clone();
        for l in late.into_iter().flatten().filter(|l| !d.boot.contains(&l.key)) {
            let side = |v: &Option<String>| v.as_deref().map_or_else(|| "nothing".to_owned(), |v| shown(&l.key, v));
            keys.push(format!("{} ({} -> {})", l.key, side(&l.on_drive), side(&l.wanted)));
        }
        if !keys.is_empty() {
            self.ctx().message("warn", told(&self.node.name, &keys, stage, old, new));
        }
    }
}

impl Proxmox {
    /// Refuses files of one's own for cloud-init that are not there: the machine would not start.
    pub(super) async fn check_custom(&self, ctx: &Ctx, node: &str, cicustom: &str) -> OpResult<()> {
        for (part, volume) in props::read("cicustom", cicustom) {
            let Some((storage, _)) = volume.split_once(':') else { continue };
            let list = self.send_list(ctx, &request::storage_content(node, storage, "snippets")).await;
            let why = match list {
                Ok(all) if all.iter().any(|v| v["volid"] == volume.as_str()) => continue,
                Ok(_) => format!("no snippet of that name is on storage {storage} of {node}"),
                Err(e) if matches!(e.fault, Fault::Denied { .. } | Fault::Unreachable) => return Err(e.into()),
                Err(e) => e.to_string(),
            };
            return Err(OpError::not_found(format!("`cicustom` takes its {part} data from `{volume}`, which is not there"))
                .because(why)
                .hint(format!(
                    "Proxmox takes no snippet over its API: copy it into the folder `snippets` of {storage} on {node} \
                     and allow the content type (`pvesm set {storage} --content …,snippets`); or leave it out: user, keys \
                     and addresses are in the site file, the rest is for `host.ensure`"
                )));
        }
        Ok(())
    }
}

/// Changes that a restart brings to the drive.
pub(super) fn changes<'a>(node: &'a str, late: &'a [Late]) -> impl Iterator<Item = Change> + 'a {
    late.iter().map(move |l| l.change(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seed(id: &str, user: &str) -> Seed {
        Seed { user: user.to_owned(), network: "version: 1\n".to_owned(), id: id.to_owned() }
    }

    #[test]
    fn rows_that_are_on_the_drive_are_no_difference() {
        let rows = json!([
            { "key": "ciuser", "value": "debian" },
            { "key": "nameserver", "value": "1.1.1.1", "pending": "9.9.9.9" },
            { "key": "searchdomain", "pending": "lab" },
            { "key": "ciupgrade", "delete": 1 }, { "key": "citype", "value": "nocloud", "delete": 0 },
        ]);
        let found = late(&rows);
        let keys: Vec<&str> = found.iter().map(|l| l.key.as_str()).collect();
        assert_eq!(keys, ["nameserver", "searchdomain", "ciupgrade"]);
        let c = found[0].change("n");
        assert_eq!(
            (c.what.as_str(), c.before, c.after),
            ("cloud-init drive: nameserver", Some("1.1.1.1".into()), Some("9.9.9.9".into()))
        );
        assert_eq!((found[1].change("n").before, found[2].change("n").after), (None, None));
        assert!(late(&Value::Null).is_empty());
    }

    #[test]
    fn a_masked_password_is_another_one() {
        let found = late(&json!([{ "key": "cipassword", "value": "**********", "pending": "**********" }]));
        assert_eq!(found[0].change("n").after, Some("another one".into()));
    }

    #[test]
    fn the_difference_of_the_texts_shows_no_password() {
        let (a, b) = (seed("1", "user: a\npassword: $5$x\n"), seed("2", "user: b\npassword: $5$y\n"));
        let diff = a.diff(&b).unwrap();
        assert!(diff.contains("-user: a") && diff.contains("+user: b") && !diff.contains("$5$"), "{diff}");
        assert_eq!(a.diff(&seed("2", "user: a\npassword: $5$z\n")), None);
    }

    #[test]
    fn what_a_boot_does_is_said_as_it_is() {
        let (a, b) = (seed("aa", ""), seed("bb", ""));
        let keys = ["ciuser".to_owned()];
        let text = told("n", &keys, Stage::Late, Some(&a), Some(&b));
        assert!(text.contains("aa -> bb") && text.contains("old data") && text.contains("regenerate: true"), "{text}");
        let text = told("n", &keys, Stage::Written, Some(&a), Some(&a));
        assert!(
            text.contains("stays (aa)") && text.contains("cloud-init clean") && !text.contains("runs again"),
            "{text}"
        );
        assert!(told("n", &keys, Stage::Off, None, None).contains("cloud-init runs again"));
    }
}
