//! A lab with a run on it, for tests of the typed client inside one process.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // a test stops at the first surprise
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuhost_lab::pve::state::{Acl, Pool};
use gpuhost_lab::spec::Spec;
use gpuhost_lab::world::World;
use gpuhost_lab::{Lab, RouteSink};
use gpuhost_stdlib::core::clock::{Clock, Mode};
use gpuhost_stdlib::core::ctx::{Consent, Ctx, Parties, Run};
use gpuhost_stdlib::core::dialer::{Dialer, Reach, Routes};
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Event, Recorder};
use gpuhost_stdlib::proxmox::{At, EnsureVm, Proxmox, RemoveVm, Removed, Request, Template, TemplateOptions, Vm};
use gpuhost_stdlib::site::{self, Site};

use crate::client::Free;
use crate::proxy::{Decide, Proxy};
use crate::pve_schema;

pub struct Sink(Routes);
impl RouteSink for Sink {
    fn up(&self, addr: &str, at: SocketAddr) {
        self.0.set(addr, at);
    }
    fn down(&self, addr: &str) {
        self.0.remove(addr);
    }
}

/// Keeps every event of a test; shows them when it fails.
#[derive(Default)]
pub struct Tape(pub Mutex<Vec<Event>>);
impl Recorder for Tape {
    fn record(&self, ts: u64, event: &Event) -> OpResult<()> {
        if std::env::var_os("GPUHOST_TEST_TRACE").is_some() {
            eprintln!("{:>8.1}s {}", ts as f64 / 1000.0 % 1e6, serde_json::to_string(event).unwrap());
        }
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

/// A lab with a run on it.
pub struct Bed {
    pub lab: Lab,
    pub ctx: Ctx,
    pub pve: Proxmox,
    pub site: Arc<Site>,
    pub tape: Arc<Tape>,
    _proxy: Option<Proxy>,
    _mark: Box<dyn std::any::Any>,
    _dir: tempfile::TempDir,
}

/// Where a bed keeps what is said on the Proxmox API.
const RECORD: &str = "api.jsonl";

/// The methods of the mission that the beds of this test program have used so far, by release.
static USED: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

pub const SITE: &str = include_str!("../../recipes/site.toml");

/// A site whose share is served by a machine of somebody else, for sites with few machines of their own.
#[must_use]
pub fn with_a_foreign_share(site: &str) -> String {
    site.replacen("\nnfs_path =", "\nnfs_server = \"10.0.0.9\"\nnfs_path =", 1)
}

/// Whether `GPUHOST_TESTS_FULL` asks for every case of the long loops; without it a test takes a few of them.
#[must_use]
pub fn full() -> bool {
    std::env::var_os("GPUHOST_TESTS_FULL").is_some()
}

impl Bed {
    pub async fn new() -> Bed {
        Bed::with(SITE).await
    }

    pub async fn with(site_text: &str) -> Bed {
        Bed::on(site_text, Spec::homelab().unwrap()).await
    }

    pub async fn on(site_text: &str, spec: Spec) -> Bed {
        Bed::build(site_text, spec, None).await
    }

    /// A bed whose requests go through a man in the middle.
    pub async fn between(site_text: &str, spec: Spec, decide: Decide) -> Bed {
        Bed::build(site_text, spec, Some(decide)).await
    }

    async fn build(site_text: &str, spec: Spec, decide: Option<Decide>) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let world = World::new(&spec).unwrap();
        let token = world.token_secret(&spec.token_id).unwrap();
        let (ca, leaf) = (world.pve.ca.cert.clone(), world.pve.leaf.clone());
        let routes = Routes::default();
        let lab = Lab::start(world, dir.path(), Mode::Instant, Arc::new(Sink(routes.clone()))).await.unwrap();
        lab.record_api(&dir.path().join(RECORD)).unwrap();
        let proxy = match decide {
            None => None,
            Some(d) => {
                let p = Proxy::start(&leaf, &ca, routes.get(&spec.api_addr).unwrap(), d).await.unwrap();
                routes.set(spec.api_addr.clone(), p.at());
                Some(p)
            }
        };
        let site = Arc::new(site::load(Path::new("site.toml"), site_text).unwrap_or_else(|f| panic!("{f:#?}")));
        let tape = Arc::new(Tape::default());
        let secrets = BTreeMap::from([("proxmox_token".to_owned(), token), ("proxmox_ca".to_owned(), ca)]);
        let run = new_run(&lab, routes, site.clone(), secrets, tape.clone(), dir.path());
        let mark = Box::new(run.clock.busy());
        let ctx = Ctx::new(Arc::new(run));
        let pve = Proxmox::connect_site(&ctx).await.unwrap_or_else(|e| panic!("{e:?}"));
        Bed { lab, ctx, pve, site, tape, _proxy: proxy, _mark: mark, _dir: dir }
    }

    /// A second run on the same lab: other credentials, other answers.
    pub fn other_run(&self, site: Site, secrets: BTreeMap<String, String>, consent: Arc<dyn Consent>) -> Ctx {
        let routes = self.ctx.dialer.routes().clone();
        let mut run = new_run(&self.lab, routes, Arc::new(site), secrets, self.tape.clone(), self._dir.path());
        run.consent = consent;
        Ctx::new(Arc::new(run))
    }

    /// The world without what may differ after everything was taken away again.
    pub fn world(&self) -> serde_json::Value {
        self.lab.with(|w| gpuhost_lab::pve::world_diff_view(w))
    }

    pub fn changed(&self) -> u64 {
        self.ctx.changed.swap(0, Ordering::SeqCst)
    }

    pub async fn vm(&self, name: &str, o: &EnsureVm) -> OpResult<Vm> {
        let node = self.site.node(name)?;
        self.pve.ensure_vm(&self.ctx, &node, o).await
    }

    pub async fn remove(&self, vm: &Vm, delete_data: bool) -> OpResult<Removed> {
        vm.remove(&self.ctx, &RemoveVm { delete_data }).await
    }

    pub async fn template(&self) -> Template {
        let o = TemplateOptions::of_site(&self.site);
        self.pve.ensure_template(&self.ctx, &o).await.unwrap_or_else(|e| panic!("{}", told(&e)))
    }

    /// Takes every right from the operator.
    pub fn strip(&self) {
        self.lab.with(|w| w.pve.access.acl.retain(|a| !a.who.starts_with("gpuhost@")));
    }

    /// Runs `pveum` lines as root on the hypervisor would.
    pub fn pveum(&self, lines: &[String]) {
        self.lab.with(|w| {
            for line in lines {
                let words: Vec<&str> = line.split(' ').collect();
                let after = |flag: &str| {
                    let at = words.iter().position(|w| *w == flag)?;
                    Some(words[at + 1].trim_matches('\'').to_owned())
                };
                if line.starts_with("pveum role add ") {
                    let privs = line.split('"').nth(1).unwrap().split(' ').map(str::to_owned).collect();
                    w.pve.access.roles.insert(words[3].to_owned(), privs);
                    continue;
                }
                if line.starts_with("pveum role modify ") && line.ends_with(" --append 1") {
                    let privs = line.split('"').nth(1).unwrap().split(' ').map(str::to_owned);
                    w.pve.access.roles.get_mut(words[3]).unwrap().extend(privs);
                    continue;
                }
                if line.starts_with("pveum pool add ") {
                    let pool = Pool { comment: line.split('"').nth(1).unwrap().to_owned(), ..Pool::default() };
                    w.pve.pools.insert(words[3].to_owned(), pool);
                    continue;
                }
                let (kind, who) = match (after("--users"), after("--tokens")) {
                    (Some(u), _) => ("user", u),
                    (_, Some(t)) => ("token", t),
                    _ => panic!("{line}"),
                };
                for role in after("--roles").unwrap().split(',') {
                    w.pve.access.acl.push(Acl {
                        path: words[3].to_owned(),
                        kind: kind.to_owned(),
                        who: who.clone(),
                        role: role.to_owned(),
                        propagate: true,
                    });
                }
            }
        });
    }

    pub async fn ask(&self, method: &str, path: &str, body: serde_json::Value) {
        let r = Request {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: Vec::new(),
            body: body.as_object().cloned(),
        };
        self.pve.send(&self.ctx, &r).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        self.ctx.clock.sleep(Duration::from_secs(30)).await;
    }

    /// A template without a system in it, for what needs no guest.
    pub async fn empty_template(&self) -> Template {
        self.pve.ensure_pool(&self.ctx).await.unwrap();
        let config = serde_json::json!({
            "vmid": 9100, "name": "empty", "pool": self.site.pool(), "memory": 512, "machine": "q35", "bios": "ovmf",
            "efidisk0": "local-zfs:1,efitype=4m", "scsihw": "virtio-scsi-single", "net0": "virtio,bridge=vmbr0",
            "scsi0": "local-zfs:3,discard=on,iothread=1,ssd=1", "ide2": "local-zfs:cloudinit", "agent": "1",
        });
        self.ask("POST", "/nodes/pve1/qemu", config).await;
        self.ask("POST", "/nodes/pve1/qemu/9100/template", serde_json::json!({})).await;
        Template::new(At::new("pve1", 9100), "empty")
    }

    pub fn messages(&self) -> Vec<String> {
        let all = self.tape.0.lock().unwrap();
        all.iter().filter_map(|e| if let Event::Message { text, .. } = e { Some(text.clone()) } else { None }).collect()
    }
}

/// A run on `lab` that may do everything.
pub fn new_run(
    lab: &Lab,
    routes: Routes,
    site: Arc<Site>,
    secrets: BTreeMap<String, String>,
    tape: Arc<Tape>,
    dir: &Path,
) -> Run {
    let state_dir = dir.join("state");
    std::fs::create_dir_all(&state_dir).unwrap();
    let by = Parties { policy: Arc::new(Free(None)), consent: Arc::new(Free(None)), recorder: tape };
    let way = (Clock::Virtual(lab.clock().clone()), Dialer::new(routes, Reach::RoutesOnly));
    Run {
        lab: true,
        site: Some(site),
        base_dir: dir.to_owned(),
        secrets,
        ..Run::new(tokio::runtime::Handle::current(), way, state_dir, by)
    }
}

impl Bed {
    /// Lines of a recipe on this bed's run, in a thread like those of the program.
    ///
    /// # Panics
    /// When the recipe fails.
    pub async fn script(&self, text: &str) -> rhai::Dynamic {
        let (run, text) = (self.ctx.run().clone(), text.to_owned());
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = move || {
            let mut engine = gpuhost::engine::plain();
            gpuhost::engine::attach(&mut engine, &run);
            tell.send(engine.eval::<rhai::Dynamic>(&text).map_err(|e| said(*e))).ok();
        };
        std::thread::Builder::new().stack_size(64 << 20).spawn(work).unwrap();
        told.await.unwrap().unwrap_or_else(|e| panic!("{e}"))
    }

    /// Holds everything that was said against the official schemas, where those are at hand.
    fn judge(&self) {
        let text = std::fs::read_to_string(self._dir.path().join(RECORD)).unwrap_or_default();
        let Some(verdict) = pve_schema::judge(&text) else { return };
        let bad = verdict.bad.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(
            bad.is_empty(),
            "of {} exchanges with the Proxmox API these do not fit the schema:\n{bad}",
            verdict.seen
        );
        let release = self.lab.with(|w| w.pve.version.clone());
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.entry(release.clone()).or_default();
        used.extend(verdict.methods.iter().cloned());
        let all = pve_schema::Verdict { methods: used.clone(), ..Default::default() };
        let (seen, of, _) = all.coverage(&release);
        println!(
            "PVE {release}: {} exchanges of this bed fit the schema; {seen} of {of} methods used so far",
            verdict.seen
        );
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.lab.stop();
        if !std::thread::panicking() {
            self.judge();
        }
    }
}

pub fn told(e: &OpError) -> String {
    format!("{} {}: {} {:?} hint {:?} last {:?}", e.op, e.target, e.message, e.causes, e.hint, e.last)
}

/// Everything that an error of a recipe says.
fn said(e: rhai::EvalAltResult) -> String {
    let own = match &e {
        rhai::EvalAltResult::ErrorRuntime(value, at) => {
            value.clone().try_cast::<OpError>().map(|e| format!("{} ({at})", told(&e)))
        }
        _ => None,
    };
    own.unwrap_or_else(|| e.to_string())
}

/// Ends a test with everything that an error says: `.unwrap_or_else(ok)`.
pub fn ok<T>(e: OpError) -> T {
    panic!("{}", told(&e))
}

pub fn start(template: &Template) -> EnsureVm {
    let options = rhai::Map::from([("template".into(), rhai::Dynamic::from(template.clone()))]);
    EnsureVm::read(&options).unwrap()
}

pub fn off(template: &Template) -> EnsureVm {
    EnsureVm { start: false, ..start(template) }
}
