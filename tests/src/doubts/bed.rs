//! What the rows are played on: worlds made once, a copy for each side of a row, a lab that another process serves.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

use super::{Row, Start};
use crate::play::copy;
use crate::served::Served;
use crate::{Bench, Ran, likeness, root};

const MACHINES: &str = "let pve = proxmox::connect(site().proxmox);\n\
    let t = pve.ensure_template(site().template);\n\
    for name in [\"shelf\", \"muscle-b\"] {\n\
        pve.ensure_vm(site().get_node(name), #{ template: t }).wait_ready(15.minutes);\n\
    }\n";

/// Worlds to begin with.
pub struct Beds {
    b: Bench,
    made: Mutex<BTreeMap<Start, Arc<OnceLock<PathBuf>>>>,
}

impl Default for Beds {
    fn default() -> Self {
        Beds::new()
    }
}

fn change(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "`{from}` is not in the site file");
    *text = text.replacen(from, to, 1);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap_or(path)).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The small site of a second hypervisor node and storage, driven by its administrator.
fn machines_site() -> String {
    let mut text = read(&root().join("tests/sites/small.toml"));
    change(
        &mut text,
        "token_id = \"attic@pve!ops\"\ntoken = \"env:ATTIC_TOKEN\"",
        "user = \"root@pam\"\npassword = \"env:X\"",
    );
    change(&mut text, "vmid = 501\n", "vmid = 501\npve_node = \"pve2\"\ndisk_storage = \"tank\"\n");
    change(&mut text, "vmid = 800\n", "vmid = 800\nvmids = { pve2 = 801 }\n");
    text
}

/// The default site with one GPU worker and without the monitoring charts.
fn cluster_site() -> String {
    let mut text = read(&root().join("recipes/site.toml"));
    for gone in ["k3s-gpu2", "k3s-gpu3", "k3s-gpu4"] {
        let at = text.find(&format!("[[nodes]]\nname = \"{gone}\"")).unwrap_or_else(|| panic!("no {gone}"));
        let end = at + 2 + text[at + 2..].find("[[nodes]]").unwrap_or_default();
        text.replace_range(at..end, "");
    }
    let at = text.find("[platform.monitoring]").unwrap_or_else(|| panic!("no monitoring"));
    let end = at + text[at..].find("\n\n").unwrap_or_default();
    text.replace_range(at..end, "");
    text
}

/// A site file without the machine `muscle-b`.
fn less(text: &str) -> String {
    let mut site: toml::Table = text.parse().unwrap_or_else(|e| panic!("{e}"));
    if let Some(nodes) = site.get_mut("nodes").and_then(toml::Value::as_array_mut) {
        nodes.retain(|n| n.get("name").and_then(toml::Value::as_str) != Some("muscle-b"));
    }
    toml::to_string(&site).unwrap_or_else(|e| panic!("{e}"))
}

impl Beds {
    /// Nothing is made yet.
    #[must_use]
    pub fn new() -> Self {
        let b = Bench::new();
        write(&b.path("machines.toml"), &machines_site());
        write(&b.path("cluster.toml"), &cluster_site());
        Beds { b, made: Mutex::default() }
    }

    fn site(&self, start: Start) -> String {
        let name = if start == Start::Cluster { "cluster.toml" } else { "machines.toml" };
        self.b.path(name).display().to_string()
    }

    /// State directory of a world to begin with.
    fn base(&self, start: Start) -> PathBuf {
        let cell = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.entry(if start == Start::Less { Start::Machines } else { start }).or_default().clone()
        };
        cell.get_or_init(|| self.make(start)).clone()
    }

    fn make(&self, start: Start) -> PathBuf {
        let dir = self.b.path(&format!("base-{start:?}"));
        let (state, site) = (dir.display().to_string(), self.site(start));
        let _ = self.b.run(&["lab", "reset", "--site", &site, "--state-dir", &state]).expect(0);
        let recipe = match start {
            Start::Bare => return dir,
            Start::Machines | Start::Less => {
                write(&self.b.path("machines.rhai"), MACHINES);
                self.b.path("machines.rhai").display().to_string()
            }
            Start::Cluster => "recipes/deploy.rhai".to_owned(),
        };
        let _ = self.b.run(&["run", &recipe, "--lab", "--site", &site, "--state-dir", &state]).expect(0);
        dir
    }

    /// A copy of the row's world, served.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn side(&self, row: &Row, name: &str) -> Side<'_> {
        let dir = self.b.path(name);
        let site = self.site(row.start);
        copy(&self.base(row.start), &dir.join("world"));
        if !row.fault.is_empty() {
            let state = dir.join("world").display().to_string();
            let _ = self.b.run(&["lab", "fault", row.fault, "--site", &site, "--state-dir", &state]).expect(0);
        }
        let lab = Served::at(&self.b, &dir.join("world"), &site, &[]);
        let path = lab.site.clone();
        if row.start == Start::Less {
            write(&dir.join("project/less.toml"), &less(&read(&path)));
        }
        Side { beds: self, row: *row, dir, lab, site }
    }
}

/// One of the two worlds of a row.
pub struct Side<'a> {
    beds: &'a Beds,
    row: Row,
    dir: PathBuf,
    lab: Served,
    site: String,
}

impl Side<'_> {
    /// Runs a text with the flags `more`, killed within the op `kill` where that is given.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn run(&self, text: &str, more: &[&str], kill: Option<&str>) -> Ran {
        let mut whole = String::new();
        for (word, line) in [
            ("pve.", "let pve = proxmox::connect(site().proxmox);\n"),
            ("cluster", "let cluster = k3s::connect(site().hosts(\"server\"));\n"),
        ] {
            if text.contains(word) {
                whole.push_str(line);
            }
        }
        whole.push_str(text);
        let recipe = self.dir.join("project").join(if text == self.row.text { "row.rhai" } else { "other.rhai" });
        write(&recipe, &whole);
        let less = self.row.start == Start::Less && text == self.row.text;
        let site = if less { self.dir.join("project/less.toml") } else { self.lab.site.clone() };
        let (recipe, site) = (recipe.display().to_string(), site.display().to_string());
        let mut c = self.beds.b.command(&[&["run", recipe.as_str(), "--site", &site, "--json"], more].concat());
        c.env("GPUHOST_STATE_DIR", self.dir.join("client"));
        if let Some(op) = kill {
            c.env("GPUHOST_TEST_KILL_AT", format!("op:{op}"));
        }
        Ran::of(&c.output().unwrap_or_else(|e| panic!("{recipe}: {e}")))
    }

    /// Events of the newest journal.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let runs = std::fs::read_dir(self.dir.join("client/runs")).unwrap_or_else(|e| panic!("{e}"));
        let mut all: Vec<PathBuf> = runs.flatten().map(|e| e.path()).collect();
        all.sort_by_key(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok());
        let newest = all.pop().unwrap_or_else(|| panic!("no journal"));
        read(&newest).lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// What the row prints of this world.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        match self.row.shows {
            "" => Vec::new(),
            text => self.run(text, &[], None).expect(0).said("print"),
        }
    }

    /// Ends it: the world as comparable data, and how often the hypervisor did what.
    #[must_use]
    pub fn end(self) -> (Value, Value) {
        let Side { beds, dir, lab, site, .. } = self;
        lab.stop();
        let out = likeness::look(&beds.b, &dir.join("world"), &site);
        std::fs::remove_dir_all(&dir).ok();
        out
    }
}
