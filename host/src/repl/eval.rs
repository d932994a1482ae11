//! Evaluating one input of the session; variables, functions and imports stay.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gpuhost_stdlib::core::ctx::Run;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::flight::Flight;
use gpuhost_stdlib::site::Site;
use rhai::{AST, Dynamic, Engine, FuncRegistration, Module, NativeCallContext, Scope};
use tokio_util::sync::CancellationToken;

use crate::doc;
use crate::engine;
use crate::record::journal::Journal;
use crate::reference::{Reference, type_word};
use crate::render::{self, explain};
use crate::runs::doubt::Doubts;
use crate::screen::Screen;
use crate::session::{Ask, Far, Session};
use crate::signals::Stop;
use crate::sources;

/// Name of the session's input in errors.
const SOURCE: &str = "input";

/// What a session works with.
pub struct Setting {
    /// Runtime.
    pub rt: tokio::runtime::Handle,
    /// Terminal.
    pub screen: Arc<Screen>,
    /// The far side.
    pub far: Far,
    /// Whether time is held between inputs (the lab is in this process).
    pub held: bool,
    /// The site.
    pub site: Option<Arc<Site>>,
    /// `--set`.
    pub params: BTreeMap<String, String>,
    /// `--yes`.
    pub yes: Option<String>,
    /// Say more.
    pub verbose: bool,
    /// Where the journal goes.
    pub state_dir: PathBuf,
}

/// What an input gave.
pub enum Outcome {
    /// Nothing to show.
    Nothing,
    /// A value.
    Text(String),
    /// An error, rendered.
    Error(String),
}

/// A session in progress.
pub struct Evaluator {
    setting: Setting,
    scope: Scope<'static>,
    /// Functions defined so far.
    functions: AST,
    /// Import statements so far, on one line.
    imports: String,
    reference: &'static Reference,
}

impl Evaluator {
    /// A session without variables.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn new(setting: Setting) -> OpResult<Self> {
        Ok(Evaluator {
            setting,
            scope: Scope::new(),
            functions: AST::empty(),
            imports: String::new(),
            reference: Reference::builtin(),
        })
    }

    /// Whether the far side is the lab.
    #[must_use]
    pub fn is_lab(&self) -> bool {
        self.setting.far.lab
    }

    /// Name of the site.
    #[must_use]
    pub fn site_name(&self) -> Option<&str> {
        self.setting.site.as_ref().map(|s| s.name.as_str())
    }

    /// Variables and their types.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.scope.iter().map(|(n, _, v)| (n.to_owned(), type_word(v.type_name()))).collect()
    }

    /// A run of its own for every input: an interrupted one must not stop the next.
    fn session(&self, cancel: CancellationToken) -> OpResult<Session> {
        let s = &self.setting;
        let id = crate::session::new_id();
        let session = Session::open(Ask {
            rt: s.rt.clone(),
            screen: s.screen.clone(),
            far: s.far.clone(),
            site: s.site.clone(),
            base_dir: ".".into(),
            params: s.params.clone(),
            yes: s.yes.clone(),
            stop: Stop { cancel, flight: Flight::default() },
            id: id.clone(),
            doubts: Doubts::default(),
            gate: None,
        });
        let journal = Lazy { dir: s.state_dir.clone(), id, lab: s.far.lab, file: None };
        session.fan.add(Box::new(journal));
        session.fan.add(crate::progress::view(&s.screen, s.far.lab, s.verbose));
        Ok(session)
    }

    /// Evaluates one input.
    pub fn eval(&mut self, line: &str, cancel: CancellationToken) -> Outcome {
        let line = match self.quoted_help(line) {
            Some(l) => l,
            None => line.to_owned(),
        };
        let session = match self.session(cancel) {
            Ok(s) => s,
            Err(e) => return Outcome::Error(self.render(&e, &line)),
        };
        let run = session.run.clone();
        let held = self.setting.held;
        let done = crate::run::on_script_thread(&run, held, || self.inner(&line, &run));
        session.release();
        let out = match done {
            Ok(Ok(v)) => v.map_or(Outcome::Nothing, Outcome::Text),
            Ok(Err(e)) => Outcome::Error(self.render(&e, &line)),
            Err(panic) => {
                let e = OpError::failed("internal error: this is a bug in gpuhost").because(panic);
                Outcome::Error(self.render(&e, &line))
            }
        };
        match out {
            Outcome::Text(t) => Outcome::Text(session.redactor.clean(&t)),
            Outcome::Error(t) => Outcome::Error(session.redactor.clean(&t)),
            Outcome::Nothing => Outcome::Nothing,
        }
    }

    /// `help(proxmox::ensure_vm)` names a function, which is no value: as a text it works.
    fn quoted_help(&self, line: &str) -> Option<String> {
        if line.trim() == "help" {
            return Some("help()".to_owned());
        }
        let inner = line.trim().trim_end_matches(';').strip_prefix("help(")?.strip_suffix(')')?.trim();
        let is_path = !inner.is_empty() && inner.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '.'));
        (is_path && !self.scope.contains(inner)).then(|| format!("help(\"{inner}\")"))
    }

    fn inner(&mut self, line: &str, run: &Arc<Run>) -> Result<Option<String>, OpError> {
        let mut e = engine::plain();
        engine::attach(&mut e, run);
        self.register_help(&mut e);
        let text = format!("{}{line}", self.imports);
        let mut ast = e.compile_with_scope(&self.scope, &text).map_err(|x| explain::parse_error(&x.0, SOURCE, x.1))?;
        ast.set_source(SOURCE);
        let whole = self.functions.merge(&ast);
        let value = e
            .eval_ast_with_scope::<Dynamic>(&mut self.scope, &whole)
            .map_err(|x| explain::from_eval(&x, SOURCE, self.reference))?;
        self.functions = self.functions.merge(&ast.clone_functions_only());
        let trimmed = line.trim();
        if trimmed.starts_with("import ") && !trimmed.contains('\n') {
            self.imports = format!("{}{}; ", self.imports, trimmed.trim_end_matches(';'));
        }
        show(&e, value).map_err(|x| explain::from_eval(&x, SOURCE, self.reference))
    }

    fn register_help(&self, e: &mut Engine) {
        let mut m = Module::new();
        let r = self.reference;
        FuncRegistration::new("help").set_into_module(&mut m, move |ncc: NativeCallContext| {
            say(&ncc, &doc::terminal::overview(r));
        });
        let r = self.reference;
        FuncRegistration::new("help").set_into_module(&mut m, move |ncc: NativeCallContext, v: Dynamic| {
            let text = if v.is_string() {
                doc::lookup(r, &v.to_string())
            } else {
                let ty = type_word(v.type_name());
                doc::terminal::type_page(r, &ty).ok_or_else(|| OpError::not_found(format!("a value of type `{ty}`")))
            };
            match text {
                Ok(t) => say(&ncc, &t),
                Err(e) => {
                    let hint = e.hint.map(|h| format!("; {h}")).unwrap_or_default();
                    say(&ncc, &format!("{}{hint}", e.message));
                }
            }
        });
        e.register_global_module(m.into());
    }

    fn render(&self, e: &OpError, line: &str) -> String {
        let text = format!("{}{line}", self.imports);
        let cx = render::Context {
            rerun: None,
            paint: self.setting.screen.paint(),
            text_of: &|name| if name == SOURCE { Some(text.clone()) } else { sources::by_name(name) },
        };
        render::error(e, &cx)
    }
}

fn say(ncc: &NativeCallContext, text: &str) {
    if let Ok(ctx) = gpuhost_stdlib::core::ctx::Ctx::of(ncc) {
        ctx.message("print", crate::screen::fitting(text.trim_end()));
    }
}

/// The value as the language shows it; nothing for `()`.
fn show(e: &Engine, value: Dynamic) -> Result<Option<String>, Box<rhai::EvalAltResult>> {
    if value.is_unit() {
        return Ok(None);
    }
    let mut scope = Scope::new();
    scope.push_dynamic("value", value);
    e.eval_with_scope::<String>(&mut scope, "value.to_debug()").map(Some)
}

/// A journal that exists only once something happened: looking around leaves no files.
struct Lazy {
    dir: PathBuf,
    id: String,
    lab: bool,
    file: Option<Journal>,
}

impl crate::record::Sink for Lazy {
    fn take(&mut self, ts_ms: u64, event: &gpuhost_stdlib::core::event::Event, line: &str) -> OpResult<()> {
        if self.file.is_none() {
            if !event.is_durable() {
                return Ok(());
            }
            self.file = Some(Journal::create(&self.dir, crate::when::wall_ms(), &self.id)?.of_lab(self.lab));
        }
        match &mut self.file {
            Some(f) => f.take(ts_ms, event, line),
            None => Ok(()),
        }
    }
}
