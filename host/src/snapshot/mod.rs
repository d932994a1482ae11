//! Snapshots: a site is read, nothing is changed, and a lab world is made that looks like it. The world is that of
//! a deployed lab with every readable difference carried over; what could not be read is named.
mod cluster;
pub mod command;
mod guests;
mod hypervisor;
mod mend;
mod model;
mod probe;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gpuhost_lab::Lab;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde::{Deserialize, Serialize};

use crate::run::on_script_thread;
use crate::screen::Screen;
use crate::session::{Far, Session};
use crate::sources::Text;

/// What a snapshot says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Notes {
    /// When it was taken, on this machine's clock.
    pub taken: String,
    /// UUID of the site.
    pub site: String,
    /// Whether it was a lab.
    #[serde(default)]
    pub lab: bool,
    /// What was read, in numbers.
    pub read: Vec<String>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
    /// What is taken for granted.
    pub assumed: Vec<String>,
    /// Keys and tokens of the world itself: made for it, worth nothing anywhere else.
    #[serde(default)]
    pub state: BTreeMap<String, String>,
}

impl Notes {
    /// Unread and assumed things as one list.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let unread = self.unread.iter().map(|t| format!("not read: {t}"));
        unread.chain(self.assumed.iter().cloned()).collect()
    }
}

/// Texts of the site and what stands for them in the world: its keys and tokens never get there.
#[derive(Debug, Default)]
struct Swap(Vec<(String, String)>);

impl Swap {
    fn add(&mut self, theirs: &str, ours: &str) {
        if theirs.len() >= 8 && theirs != ours {
            self.0.push((theirs.to_owned(), ours.to_owned()));
        }
    }

    /// A server's whole token, the hash of its CA and its password.
    fn add_token(&mut self, theirs: &str, ours: &str) {
        let parts = |t: &str| {
            let (head, password) = t.trim().rsplit_once("::server:").unwrap_or(("", t.trim()));
            (head.trim_start_matches("K10").to_owned(), password.to_owned())
        };
        let ((their_ca, theirs), (our_ca, ours)) = (parts(theirs), parts(ours));
        self.add(&their_ca, &our_ca);
        self.add(&theirs, &ours);
    }

    fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |t, (from, to)| t.replace(from, to))
    }
}

/// What takes snapshots.
pub struct Camera<'a> {
    /// Runtime.
    pub rt: &'a tokio::runtime::Handle,
    /// Terminal.
    pub screen: &'a Arc<Screen>,
    /// The site.
    pub site: &'a Arc<Site>,
    /// Its file.
    pub site_text: &'a Text,
    /// State directory of this program; models are kept below it.
    pub state_dir: &'a Path,
}

/// A session for reading, without a journal.
fn session(rt: &tokio::runtime::Handle, screen: &Arc<Screen>, site: &Arc<Site>, far: Far) -> Session {
    Session::bare(rt, screen, site, far, None, crate::signals::Stop::default())
}

/// Runs `work` with the stack and the busy mark that scripts have.
fn work<T: Send>(s: &Session, held: bool, work: impl FnOnce(&Ctx) -> OpResult<T> + Send) -> OpResult<T> {
    let ctx = Ctx::new(s.run.clone());
    on_script_thread(&s.run, held, || work(&ctx)).unwrap_or_else(|text| Err(OpError::failed(text)))
}

impl Camera<'_> {
    /// Reads the site behind `far`; its likeness is the lab below `stage` afterwards.
    ///
    /// # Errors
    /// When the hypervisor cannot be read, or the world cannot be made.
    pub fn take(&self, far: Far, stage: &Path) -> OpResult<Notes> {
        let mut notes = Notes {
            taken: crate::when::iso(crate::when::wall_ms()),
            site: self.site.uuid.clone(),
            lab: far.lab,
            ..Notes::default()
        };
        let (rt, site) = (self.rt, self.site.as_ref());
        let their_key = model::public_key(site, &far.state_dir);
        let live = session(rt, self.screen, self.site, far);
        let seen = work(&live, false, |ctx| rt.block_on(hypervisor::read(ctx, site, &mut notes)))?;
        let (far, here) = model::make(self, stage, &seen)?;
        let our_state = far.state_dir.clone();
        let lab = here.lab().clone();
        let ours = session(rt, self.screen, self.site, far);
        let mut swap = Swap::default();
        if let (Some(theirs), Some(mine)) = (&their_key, model::public_key(site, &our_state)) {
            swap.add(&hypervisor::percent(theirs), &hypervisor::percent(&mine));
            swap.add(theirs, &mine);
        }
        let can_log_in = their_key.is_some() || !site.ssh.key.starts_with("state:");
        let mut filling = Filling { rt, site, live: &live, ours: &ours, lab: &lab, swap, notes: &mut notes };
        let done = filling.fill(&seen, can_log_in);
        drop(ours);
        let folder = here.close()?;
        done?;
        model::scrub(site, folder.dir(), &mut notes)?;
        notes.state = model::state(&our_state);
        Ok(notes)
    }
}

/// Carries what is read over into the world.
struct Filling<'a> {
    rt: &'a tokio::runtime::Handle,
    site: &'a Site,
    live: &'a Session,
    ours: &'a Session,
    lab: &'a Lab,
    swap: Swap,
    notes: &'a mut Notes,
}

impl Filling<'_> {
    fn fill(&mut self, seen: &hypervisor::Seen, can_log_in: bool) -> OpResult<()> {
        let Filling { rt, site, live, ours, lab, .. } = *self;
        let (swap, notes) = (&mut self.swap, &mut *self.notes);
        let habits = guests::Habits::of(lab);
        let running = seen.running(site);
        let inside = if can_log_in {
            work(live, false, |ctx| Ok(rt.block_on(guests::read(ctx, site, &running, &habits, notes))))?
        } else {
            notes.unread.push("the inside of the machines: the site's SSH key is not on this machine".to_owned());
            guests::Inside::default()
        };
        let objects = work(live, false, |ctx| Ok(rt.block_on(cluster::read(ctx, site, &inside, notes))))?;
        if let (cluster::Read::Objects { token, .. }, Some(mine)) = (&objects, cluster::token_of(lab)) {
            swap.add_token(token, &mine);
        }
        lab.with(|w| hypervisor::place(lab, w, site, seen, swap, notes));
        let bare = inside.bare(site, lab);
        lab.with(|w| guests::renew(lab, w, site, &bare, notes));
        work(ours, true, |ctx| rt.block_on(guests::wait(ctx, site, &bare)))?;
        let names = inside.names();
        let look = |notes: &mut Notes| {
            work(ours, true, |ctx| Ok(rt.block_on(guests::read(ctx, site, &names, &habits, notes))))
        };
        let mut mine = look(notes)?;
        if work(ours, true, |ctx| rt.block_on(mend::packages(ctx, site, &inside, &mine, &habits)))? {
            mine = look(notes)?;
        }
        let files = work(live, false, |ctx| Ok(rt.block_on(mend::fetch(ctx, site, &inside, &mine, swap, notes))))?;
        let repair = mend::Repair { site, lab, theirs: &inside, mine: &mine, habits: &habits };
        work(ours, true, |ctx| rt.block_on(repair.all(ctx, &files, notes)))?;
        work(ours, true, |ctx| rt.block_on(cluster::place(ctx, site, lab, &objects, swap, notes)))
    }
}
