//! Tasks: they run step by step on the lab's clock, hold config locks, write a log and end with a status.
use gpuhost_stdlib::wire::pve::upid::Upid;
use serde::{Deserialize, Serialize};

use super::acl::Who;
use super::state::Task;
use super::{PveEvent, backup, content, prune, qemu};
use crate::Lab;
use crate::world::{Event, World};

/// What a task does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Job {
    /// Creates a VM.
    Create(qemu::create::Create),
    /// Clones a VM.
    Clone(qemu::clone::Clone),
    /// Changes a VM's config.
    Config(qemu::config::Change),
    /// Starts a VM.
    Start {
        /// VM.
        vmid: u32,
    },
    /// Cuts a VM's power.
    Stop {
        /// VM.
        vmid: u32,
    },
    /// Shuts a VM down.
    Shutdown {
        /// VM.
        vmid: u32,
        /// Patience in seconds.
        timeout: u64,
        /// Cut the power afterwards.
        force: bool,
    },
    /// Shuts a VM down and starts it.
    Reboot {
        /// VM.
        vmid: u32,
        /// Patience in seconds.
        timeout: u64,
    },
    /// Presses a VM's reset button.
    Reset {
        /// VM.
        vmid: u32,
    },
    /// Writes a VM's memory to disk and stops it.
    Hibernate {
        /// VM.
        vmid: u32,
        /// Storage of the memory.
        storage: Option<String>,
    },
    /// Pauses or resumes a VM.
    Pause {
        /// VM.
        vmid: u32,
        /// Pause or resume.
        on: bool,
    },
    /// Destroys a VM.
    Destroy {
        /// VM.
        vmid: u32,
        /// Also from jobs and pools.
        purge: bool,
        /// Also volumes nobody refers to.
        unreferenced: bool,
    },
    /// Makes a template of a VM.
    Template {
        /// VM.
        vmid: u32,
        /// Only this disk.
        disk: Option<String>,
    },
    /// Grows a disk.
    Resize {
        /// VM.
        vmid: u32,
        /// Disk.
        disk: String,
        /// Wanted size as sent.
        size: String,
    },
    /// Moves a disk to another storage or VM.
    MoveDisk(qemu::move_disk::Move),
    /// Moves a VM to another node.
    Migrate(qemu::migrate::Migrate),
    /// Backs VMs up.
    Backup(backup::Backup),
    /// Restores a VM.
    Restore(backup::Restore),
    /// Removes old backups.
    Prune {
        /// Volumes.
        volids: Vec<String>,
    },
    /// Copies a volume.
    Copy(content::Copy),
    /// Fails at once.
    Refused {
        /// Why.
        why: String,
    },
    /// Takes a snapshot.
    Snapshot {
        /// VM.
        vmid: u32,
        /// Name.
        name: String,
        /// Description.
        description: String,
        /// Whether the memory is kept.
        memory: bool,
    },
    /// Goes back to a snapshot.
    Rollback {
        /// VM.
        vmid: u32,
        /// Name.
        name: String,
        /// Start afterwards.
        start: bool,
    },
    /// Removes a snapshot.
    DelSnapshot {
        /// VM.
        vmid: u32,
        /// Name.
        name: String,
    },
    /// Downloads a file into a storage.
    Download(content::Download),
    /// Removes a volume.
    ImgDel {
        /// Volume.
        volid: String,
    },
    /// Everything was done when it started; its log is there already.
    Over,
}

impl Job {
    /// The VMs that it changes.
    #[must_use]
    pub fn vms(&self) -> Vec<u32> {
        match self {
            Job::Create(j) => vec![j.vmid],
            Job::Clone(j) => vec![j.vmid],
            Job::Config(j) => vec![j.vmid],
            Job::Migrate(j) => vec![j.vmid],
            Job::Restore(j) => vec![j.vmid],
            Job::MoveDisk(j) => match j.to {
                qemu::move_disk::To::Vm { vmid, .. } => vec![j.vmid, vmid],
                qemu::move_disk::To::Storage { .. } => vec![j.vmid],
            },
            Job::Start { vmid }
            | Job::Stop { vmid }
            | Job::Shutdown { vmid, .. }
            | Job::Reboot { vmid, .. }
            | Job::Reset { vmid }
            | Job::Pause { vmid, .. }
            | Job::Hibernate { vmid, .. }
            | Job::Destroy { vmid, .. }
            | Job::Template { vmid, .. }
            | Job::Resize { vmid, .. }
            | Job::Snapshot { vmid, .. }
            | Job::Rollback { vmid, .. }
            | Job::DelSnapshot { vmid, .. } => vec![*vmid],
            Job::Backup(j) => j.vms.clone(),
            Job::Download(_)
            | Job::ImgDel { .. }
            | Job::Prune { .. }
            | Job::Copy(_)
            | Job::Refused { .. }
            | Job::Over => Vec::new(),
        }
    }
}

/// How a step of a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The next step follows after so many milliseconds.
    Next(u64),
    /// The same step again after so many milliseconds.
    Again(u64),
    /// Finished well.
    Done,
    /// Failed.
    Fail(String),
}

impl From<Result<Step, String>> for Step {
    fn from(r: Result<Step, String>) -> Self {
        r.unwrap_or_else(Step::Fail)
    }
}

/// Starts a task and returns its UPID.
pub fn start(w: &mut World, node: &str, kind: &str, id: &str, who: &Who, job: Job) -> String {
    let step = 3 + w.random() % 20;
    w.pve.last_pid += u32::try_from(step).unwrap_or(3);
    let upid = Upid {
        node: node.to_owned(),
        pid: w.pve.last_pid,
        pstart: w.now_ms.saturating_sub(w.pve.booted_ms) / 10,
        starttime: w.now_ms / 1000,
        kind: kind.to_owned(),
        id: id.to_owned(),
        user: who.user.clone(),
        token: who.token.clone(),
    }
    .to_string();
    let task = Task {
        node: node.to_owned(),
        kind: kind.to_owned(),
        id: id.to_owned(),
        user: who.user.clone(),
        token: who.token.clone(),
        start: w.now_ms / 1000,
        end: None,
        exit: None,
        log: Vec::new(),
        job,
        step: 0,
        locks: Vec::new(),
        waiting_since: None,
        warnings: 0,
    };
    w.pve.tasks.insert(upid.clone(), task);
    w.pve.task_order.push(upid.clone());
    w.pve.active.insert(upid.clone());
    w.schedule(20, Event::Pve(PveEvent::Task { upid: upid.clone() }));
    upid
}

/// Runs the next step of a task.
pub fn step(lab: &Lab, w: &mut World, upid: &str) {
    let Some(t) = w.pve.tasks.get(upid).filter(|t| t.running()) else { return };
    let (job, n) = (t.job.clone(), t.step);
    for vmid in job.vms() {
        qemu::status::remember(w, vmid);
    }
    let again = match run(lab, w, upid, &job, n) {
        Step::Next(ms) => {
            if let Some(t) = w.pve.tasks.get_mut(upid) {
                t.step += 1;
            }
            ms
        }
        Step::Again(ms) => ms,
        Step::Done => return finish(w, upid, None),
        Step::Fail(why) => return finish(w, upid, Some(why)),
    };
    w.schedule(again, Event::Pve(PveEvent::Task { upid: upid.to_owned() }));
}

fn run(lab: &Lab, w: &mut World, upid: &str, job: &Job, n: u32) -> Step {
    use qemu::{create, destroy, move_disk, power, resize, snapshot};
    match job {
        Job::Create(j) => create::run(w, upid, j, n).into(),
        Job::Clone(j) => qemu::clone::run(w, upid, j, n),
        Job::Config(j) => qemu::config::run(w, upid, j, n),
        Job::Start { vmid } => power::start(lab, w, upid, *vmid, n).into(),
        Job::Stop { vmid } => power::stop(lab, w, upid, *vmid).into(),
        Job::Shutdown { vmid, timeout, force } => power::shutdown(lab, w, upid, *vmid, (*timeout, *force), n).into(),
        Job::Reboot { vmid, timeout } => power::reboot(lab, w, upid, *vmid, *timeout, n).into(),
        Job::Reset { vmid } => power::reset(lab, w, upid, *vmid).into(),
        Job::Pause { vmid, on } => power::pause(w, upid, *vmid, *on).into(),
        Job::Destroy { vmid, purge, unreferenced } => destroy::run(w, upid, *vmid, *purge, *unreferenced, n).into(),
        Job::Template { vmid, disk } => destroy::template(w, upid, *vmid, disk.as_deref(), n).into(),
        Job::Resize { vmid, disk, size } => resize::run(w, upid, *vmid, disk, size, n).into(),
        Job::MoveDisk(j) => move_disk::run(w, upid, j, n).into(),
        Job::Migrate(j) => qemu::migrate::run(w, upid, j, n).into(),
        Job::Backup(j) => backup::run(w, upid, j, n).into(),
        Job::Restore(j) => backup::restore(w, upid, j, n).into(),
        Job::Prune { volids } => prune::run(w, upid, volids).into(),
        Job::Copy(j) => content::copy(w, upid, j, n).into(),
        Job::Refused { why } => Step::Fail(why.clone()),
        Job::Hibernate { vmid, storage } => power::hibernate(lab, w, upid, *vmid, storage.as_deref(), n).into(),
        Job::Snapshot { vmid, name, description, memory } => {
            snapshot::take(w, upid, *vmid, (name, description), *memory, n).into()
        }
        Job::Rollback { vmid, name, start } => snapshot::rollback(lab, w, upid, *vmid, name, *start, n).into(),
        Job::DelSnapshot { vmid, name } => snapshot::remove(w, upid, *vmid, name, n).into(),
        Job::Download(j) => content::download(w, upid, j, n).into(),
        Job::ImgDel { volid } => content::delete(w, upid, volid, n).into(),
        Job::Over => Step::Done,
    }
}

/// Ends a task, well or with an error. As on the server one newline at the end is dropped and the others are blanks.
pub fn finish(w: &mut World, upid: &str, error: Option<String>) {
    let now = w.now_ms / 1000;
    w.pve.active.remove(upid);
    let Some(t) = w.pve.tasks.get_mut(upid) else { return };
    let (exit, line) = match error {
        Some(e) => {
            let text = e.strip_suffix('\n').unwrap_or(&e).replace('\n', " ");
            let line = format!("TASK ERROR: {text}");
            (text, line)
        }
        None if t.warnings > 0 => (format!("WARNINGS: {}", t.warnings), format!("TASK WARNINGS: {}", t.warnings)),
        None => ("OK".to_owned(), "TASK OK".to_owned()),
    };
    t.exit = Some(exit);
    t.end = Some(now);
    t.log.push(line);
    t.locks.clear();
}

/// Aborts a running task: what it had begun is taken back where the real worker does so.
pub fn abort(w: &mut World, upid: &str) {
    let Some(t) = w.pve.tasks.get(upid).filter(|t| t.running()) else { return };
    let (job, begun) = (t.job.clone(), t.step > 0);
    let why = match &job {
        Job::Clone(j) => {
            if begun {
                qemu::clone::undo(w, j);
            }
            "clone failed: interrupted by signal".to_owned()
        }
        Job::Create(j) => {
            qemu::create::undo(w, j.vmid);
            format!("unable to create VM {} - interrupted by signal", j.vmid)
        }
        Job::Start { vmid } => {
            qemu::power::give_cards_back(w, *vmid);
            "interrupted by signal".to_owned()
        }
        Job::Migrate(j) => {
            qemu::unlock_config(w, j.vmid, "migrate");
            "migration aborted: interrupted by signal".to_owned()
        }
        Job::Backup(j) => {
            for vmid in &j.vms {
                qemu::unlock_config(w, *vmid, "backup");
            }
            "interrupted by signal".to_owned()
        }
        Job::Restore(j) => {
            qemu::unlock_config(w, j.vmid, "create");
            "interrupted by signal".to_owned()
        }
        _ => "interrupted by signal".to_owned(),
    };
    finish(w, upid, Some(why));
}

/// Makes a task that has just begun fail with `why`.
pub fn fail_now(w: &mut World, upid: &str, why: &str) {
    abort(w, upid);
    if let Some(t) = w.pve.tasks.get_mut(upid) {
        t.exit = Some(why.to_owned());
        t.log.pop();
        t.log.push(format!("TASK ERROR: {why}"));
    }
}

/// Appends to a task's log.
pub fn log(w: &mut World, upid: &str, line: impl Into<String>) {
    if let Some(t) = w.pve.tasks.get_mut(upid) {
        t.log.push(line.into());
    }
}

/// Appends a warning to a task's log.
pub fn warn(w: &mut World, upid: &str, line: &str) {
    if let Some(t) = w.pve.tasks.get_mut(upid) {
        t.log.push(format!("WARN: {line}"));
        t.warnings += 1;
    }
}

/// Whether a task other than `upid` holds the lock of a VM's config file in a way that excludes us.
#[must_use]
pub fn held(w: &World, upid: &str, vmid: u32, shared: bool) -> bool {
    let other = w.pve.active.iter().filter(|u| u.as_str() != upid).filter_map(|u| w.pve.tasks.get(u));
    other.flat_map(|t| &t.locks).any(|(v, s)| *v == vmid && !(*s && shared))
}

/// Takes the lock of a VM's config file, waiting up to `limit_ms`. `None`: the task has it.
pub fn lock(w: &mut World, upid: &str, vmid: u32, shared: bool, limit_ms: u64) -> Option<Step> {
    let busy = held(w, upid, vmid, shared);
    let now = w.now_ms;
    let t = w.pve.tasks.get_mut(upid)?;
    if !busy {
        if t.waiting_since.take().is_some() {
            t.log.push(" OK".to_owned());
        }
        if !t.locks.contains(&(vmid, shared)) {
            t.locks.push((vmid, shared));
        }
        return None;
    }
    let since = *t.waiting_since.get_or_insert_with(|| {
        t.log.push("trying to acquire lock...".to_owned());
        now
    });
    if now - since >= limit_ms {
        let why = format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout");
        return Some(Step::Fail(why));
    }
    Some(Step::Again(limit_ms.min(250)))
}

/// Gives the locks of a task back before it ends.
pub fn unlock(w: &mut World, upid: &str) {
    if let Some(t) = w.pve.tasks.get_mut(upid) {
        t.locks.clear();
    }
}
