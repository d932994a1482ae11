//! What a script runs in: site, far side, context, recorder. Shared by `run` and `repl`.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::ctx::{Ctx, Parties, Run};
use gpuhost_stdlib::core::dialer::{Dialer, Reach, Routes};
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;

use crate::consent::Answers;
use crate::lock::hold::Hold;
use crate::plan::gate::Gate;
use crate::policy::SitePolicy;
use crate::record::Fan;
use crate::record::redact::Redactor;
use crate::runs::doubt::Doubts;
use crate::screen::Screen;
use crate::signals::Stop;

/// The far side of a run: the real site, or a lab.
#[derive(Clone)]
pub struct Far {
    /// Its time.
    pub clock: Clock,
    /// Ways to its servers.
    pub dialer: Dialer,
    /// Secrets that it gives out by itself.
    pub secrets: BTreeMap<String, String>,
    /// Whether it is a lab.
    pub lab: bool,
    /// Where a lab of another process takes orders.
    pub control: Option<String>,
    /// Where keys and tokens for it live.
    pub state_dir: PathBuf,
}

impl Far {
    /// The real site. Its keys live apart from those of other sites and of labs.
    ///
    /// # Errors
    /// When an entry of `[connect]` is not an address, or the state directory cannot be used.
    pub fn real(site: Option<&Site>, state_dir: &Path) -> OpResult<Self> {
        let routes = Routes::default();
        for (from, to) in site.iter().flat_map(|s| &s.connect) {
            let at = to.parse().map_err(|_| {
                OpError::invalid(format!("`{to}` is not an address"))
                    .on(from.clone())
                    .hint("entries of `[connect]` read `\"10.0.0.11:22\" = \"127.0.0.1:40022\"`")
            })?;
            routes.set(from.clone(), at);
        }
        let state_dir = match site {
            Some(s) => state_dir.join("sites").join(&s.uuid),
            None => state_dir.to_owned(),
        };
        crate::statedir::private_dir(&state_dir)?;
        Ok(Far {
            clock: Clock::Real,
            dialer: Dialer::new(routes, Reach::Direct),
            secrets: BTreeMap::new(),
            lab: false,
            control: None,
            state_dir,
        })
    }
}

/// What a session is opened with.
pub struct Ask {
    /// Runtime.
    pub rt: tokio::runtime::Handle,
    /// Terminal.
    pub screen: Arc<Screen>,
    /// The far side.
    pub far: Far,
    /// The site.
    pub site: Option<Arc<Site>>,
    /// Folder of the recipe.
    pub base_dir: PathBuf,
    /// `--set`.
    pub params: BTreeMap<String, String>,
    /// `--yes[=SITE]`.
    pub yes: Option<String>,
    /// Ctrl-C.
    pub stop: Stop,
    /// Id of the run.
    pub id: String,
    /// What earlier runs left in doubt.
    pub doubts: Doubts,
    /// The plan that it must keep to.
    pub gate: Option<Gate>,
}

/// An open session.
pub struct Session {
    /// What script functions see.
    pub run: Arc<Run>,
    /// Its recorder.
    pub fan: Arc<Fan>,
    /// Cleans every text that is shown.
    pub redactor: Redactor,
    /// The site's lock.
    hold: Hold,
}

/// A new run's id.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

impl Session {
    /// A session for a command of its own: no journal, no plan, no parameters.
    #[must_use]
    pub fn bare(
        rt: &tokio::runtime::Handle,
        screen: &Arc<Screen>,
        site: &Arc<Site>,
        far: Far,
        yes: Option<String>,
        stop: Stop,
    ) -> Self {
        Session::open(Ask {
            rt: rt.clone(),
            screen: screen.clone(),
            far,
            site: Some(site.clone()),
            base_dir: ".".into(),
            params: BTreeMap::new(),
            yes,
            stop,
            id: new_id(),
            doubts: Doubts::default(),
            gate: None,
        })
    }

    /// Builds the context of a run; sinks are added to `fan` by the caller.
    #[must_use]
    pub fn open(ask: Ask) -> Self {
        let redactor = Redactor::default();
        let fan = Arc::new(Fan::new(redactor.clone(), ask.far.lab));
        let name = ask.site.as_ref().map(|s| s.name.clone()).unwrap_or_default();
        let hold = Hold::new(ask.id);
        let answers = Arc::new(Answers::new(ask.yes, name, ask.far.lab, ask.screen));
        let by = Parties {
            policy: Arc::new(SitePolicy {
                hold: hold.clone(),
                doubts: ask.doubts,
                gate: ask.gate,
                answers: answers.clone(),
            }),
            consent: answers,
            recorder: fan.clone(),
        };
        let run = Arc::new(Run {
            cancel: ask.stop.cancel,
            flight: ask.stop.flight,
            lab: ask.far.lab,
            site: ask.site,
            base_dir: ask.base_dir,
            params: ask.params,
            secrets: ask.far.secrets,
            ..Run::new(ask.rt, (ask.far.clock, ask.far.dialer), ask.far.state_dir, by)
        });
        redactor.attach(&run);
        Session { run, fan, redactor, hold }
    }

    /// Gives back what the run holds at the far side. Call it once, after the script and before the last event.
    pub fn release(&self) {
        let Some(site) = self.run.site.clone() else { return };
        let ctx = Ctx::new(self.run.clone());
        let mark = self.run.clock.busy();
        self.run.rt.block_on(self.hold.release(&ctx, &site));
        drop(mark);
    }
}

/// `name=value` pairs of `--set`.
///
/// # Errors
/// `invalid` naming the pair without `=`.
pub fn params(pairs: &[String]) -> OpResult<BTreeMap<String, String>> {
    pairs
        .iter()
        .map(|p| match p.split_once('=') {
            Some((k, v)) if !k.is_empty() => Ok((k.to_owned(), v.to_owned())),
            _ => Err(OpError::invalid(format!("`--set {p}` has no `=`")).hint("--set name=value")),
        })
        .collect()
}
