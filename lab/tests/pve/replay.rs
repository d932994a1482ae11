//! Every recorded request of the real server, in order, against the lab: the answers must be the recorded ones
//! once ids, times and addresses are put aside.
use std::collections::BTreeMap;
use std::time::Duration;

use gpuhost_lab::guest;
use gpuhost_lab::pve::acl::Who;
use gpuhost_lab::pve::state::{Acl, Mapping, Snapshot, Token, User};
use gpuhost_lab::pve::task::{self, Job};
use gpuhost_lab::spec::{PciSpec, Spec};
use gpuhost_lab::volume::Content;
use gpuhost_lab::world::World;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::normal;
use crate::pve_schema::data_dir;

/// Recorded answers that the lab does not give, by file and name, and why that is right.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("errors", "html root", "the HTML pages of the API viewer are not simulated"),
    ("running", "resize running", "the recorded guest ran without KVM and held its image: its resize failed"),
    ("running", "resize running (task result)", "the same"),
    ("running", "snapshot running", "the recorded QEMU had no savevm; the lab's snapshot would succeed"),
    ("running", "snapshot running (task result)", "the same"),
    ("running", "storage content vm 110", "the recorded guest held its image: qemu-img could not look"),
    ("running", "start (task result)", "the recorded server's own Perl warnings are in the log"),
    ("running", "agent netif", "another guest: its address was set by hand"),
    ("running", "agent info", "another guest agent: the recorded one has 42 commands"),
    ("running", "agent osinfo", "another guest: a hand-made image, the lab boots Debian"),
    ("running", "agent hostname", "another guest: the lab's takes the name of its VM"),
    ("running", "agent exec-status bad pid", "the pid that is bad is the recorded one"),
    ("locks", "task log window", "the recorded log counts a third line that no window shows"),
    ("locks", "task log past end", "the same"),
];

fn pci(address: &str, class: &str, vendor: &str, device: &str, sub: (&str, &str)) -> PciSpec {
    PciSpec {
        address: address.into(),
        vendor: vendor.into(),
        device: device.into(),
        class: class.into(),
        vendor_name: String::new(),
        device_name: String::new(),
        subsystem_vendor: sub.0.into(),
        subsystem_device: sub.1.into(),
        iommu_group: -1,
    }
}

/// The machine that the recordings were made on.
async fn recorded_machine() -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.token_id = "root@pam!lab".into();
    spec.root_password = "labpass".into();
    spec.api_addr = "10.98.0.1:8006".into();
    spec.foreign_vms.clear();
    spec.storages.truncate(1);
    spec.storages[0].content = "vztmpl,rootdir,backup,snippets,iso,images".into();
    spec.storages[0].size_gib = 64;
    let n = &mut spec.nodes[0];
    (n.cpus, n.memory_gib, n.iommu) = (2, 32, false);
    let v = "0x1af4";
    n.pci = vec![
        pci("0000:00:00.0", "0x060000", "0x8086", "0x0d57", ("0x0000", "0x0000")),
        pci("0000:00:01.0", "0xffff00", v, "0x1045", (v, "0x1045")),
        pci("0000:00:02.0", "0x018000", v, "0x1042", (v, "0x1042")),
        pci("0000:00:03.0", "0x020000", v, "0x1041", (v, "0x1041")),
        pci("0000:00:04.0", "0xffff00", v, "0x1053", (v, "0x1053")),
        pci("0000:00:05.0", "0xffff00", v, "0x1044", (v, "0x1044")),
    ];
    let bed = Bed::with(spec).await;
    bed.lab.with(|w| {
        w.pve.access.acl.clear();
        w.pve.access.roles.clear();
        let root = w.pve.access.users.get_mut("root@pam").unwrap();
        root.tokens.get_mut("lab").unwrap().privsep = false;
        let bridge = json!({
            "bridge_stp": "off", "address": "10.98.0.1", "netmask": "24", "method": "static", "method6": "manual",
            "active": 1, "cidr": "10.98.0.1/24", "type": "bridge", "priority": 3, "families": ["inet"], "autostart": 1,
            "bridge_ports": "", "bridge_fd": "0",
        });
        let row = bridge.as_object().unwrap().clone().into_iter().collect();
        w.pve.interfaces.insert("pve1".into(), BTreeMap::from([("vmbr0".to_owned(), row)]));
    });
    let vm = json!({
        "vmid": 9000, "name": "tmpl", "memory": 512, "machine": "q35", "bios": "ovmf", "agent": "1", "vga": "serial0",
        "efidisk0": "local:1,efitype=4m,pre-enrolled-keys=0,format=qcow2", "scsi0": "local:1,discard=on,ssd=1,format=qcow2",
        "ide2": "local:cloudinit", "boot": "order=scsi0", "serial0": "socket", "net0": "virtio,bridge=vmbr0",
        "scsihw": "virtio-scsi-single", "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1",
    });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    bed
}

/// What the recorder had done by hand before a file began.
async fn stage(bed: &Bed, file: &str) {
    match file {
        "running" => {
            bed.done("DELETE", "/nodes/pve1/qemu/9000?purge=1", None).await;
            let vm = json!({
                "vmid": 9000, "name": "tmpl", "memory": 512, "machine": "q35", "agent": "1", "vga": "serial0",
                "scsi0": "local:1,discard=on,ssd=1,format=qcow2", "ide2": "local:cloudinit", "boot": "order=scsi0",
                "serial0": "socket", "net0": "virtio,bridge=vmbr0", "scsihw": "virtio-scsi-single",
                "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1",
            });
            bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
            bed.lab.with(|w| {
                let args = "-kernel /var/lib/vz/boot/vmlinuz -initrd /var/lib/vz/boot/initrd.gz -append console=ttyS0";
                w.pve.vms.get_mut(&9000).unwrap().conf.insert("args".into(), args.into());
                // Something has to boot.
                let disk = w.volumes.get_mut("local:9000/vm-9000-disk-0.qcow2").unwrap();
                disk.content = Content::CloudImage { os: "debian-12".into() };
            });
            bed.done("POST", "/nodes/pve1/qemu/9000/template", None).await;
        }
        "locks" => {
            bed.lab.with(|w| {
                guest::power_off(&bed.lab, w, 110);
                w.pve.vms.remove(&110);
                w.pve.pools.get_mut("gpu").unwrap().vms.clear();
                w.pve.tables.remove("ha/resources");
                w.pve.vms.get_mut(&9000).unwrap().conf.remove("args");
                w.pve.files.retain(|_, f| f.vmid != 110);
            });
        }
        "flow" => bed.lab.with(|w| {
            w.pve.vms.remove(&120);
            w.pve.files.retain(|id, f| f.vmid != 120 && !id.contains(":iso/"));
            let map = ["01", "02"].map(|b| format!("node=pve1,path=0000:{b}:00.0,id=10de:20b5")).to_vec();
            let m = Mapping { description: Some("A100".into()), map, ..Mapping::default() };
            w.pve.mappings.insert("gpu-a".into(), m);
            // The paths on which the least privilege had been measured.
            let user = User { enable: true, ..User::default() };
            w.pve.access.users.insert("measure@pve".into(), user);
            for path in [
                "/vms/201",
                "/vms/9000",
                "/vms/9100",
                "/storage/local",
                "/mapping/pci/gpu-a",
                "/nodes/pve1",
                "/sdn/zones/localnetwork/vmbr0",
            ] {
                w.pve.access.acl.push(Acl {
                    path: path.into(),
                    kind: "user".into(),
                    who: "measure@pve".into(),
                    role: "PVEAuditor".into(),
                    propagate: true,
                });
            }
        }),
        "sitelock" => bed.lab.with(|w| {
            let args = "-kernel /var/lib/vz/boot/vmlinuz -initrd /var/lib/vz/boot/initrd.gz -append console=ttyS0";
            w.pve.vms.get_mut(&9000).unwrap().conf.insert("args".into(), args.into());
            let none = Token { secret: "none".into(), privsep: true, ..Token::default() };
            w.pve.access.users.get_mut("root@pam").unwrap().tokens.insert("none".into(), none);
        }),
        _ => {}
    }
}

/// A task that the recorded server had and that ended with `why`.
fn past_task(w: &mut World, kind: &str, why: &str) -> String {
    let who = Who { user: "root@pam".into(), token: Some("lab".into()) };
    task::start(w, "pve1", kind, "110", &who, Job::Refused { why: why.into() })
}

/// A process outside that holds the lock of VM 120's config file.
fn hold_lock(w: &mut World) {
    let who = Who { user: "root@pam".into(), token: None };
    let upid = task::start(w, "pve1", "outside", "120", &who, Job::Over);
    w.unschedule(|e| format!("{e:?}").contains(":outside:"));
    w.pve.tasks.get_mut(&upid).unwrap().locks.push((120, false));
}

fn release_lock(w: &mut World) {
    let held: Vec<String> = w.pve.tasks.iter().filter(|(_, t)| t.kind == "outside").map(|(u, _)| u.clone()).collect();
    for upid in held {
        w.pve.active.remove(&upid);
        w.pve.tasks.remove(&upid);
        w.pve.task_order.retain(|u| *u != upid);
    }
}

/// What the recorder did by hand right before a request.
async fn before(bed: &Bed, file: &str, name: &str) {
    let lock = |v: Option<&str>| {
        bed.lab.with(|w| {
            let c = &mut w.pve.vms.get_mut(&120).unwrap().conf;
            match v {
                Some(v) => c.insert("lock".into(), v.into()),
                None => c.remove("lock"),
            };
        });
    };
    match (file, name) {
        ("running", "agent ping") => {
            loop {
                let up = bed.lab.with(|w| guest::is_up(w, 110));
                if up {
                    break;
                }
                bed.sleep(1000).await;
            }
            bed.lab.with(|w| {
                let g = w.guests.get_mut(&110).unwrap();
                g.services.entry("qemu-guest-agent.service".into()).or_default().state = "active".into();
            });
        }
        // Time stands still while a command runs.
        ("running", "agent exec-status" | "agent exec-status stdin") => {
            bed.sleep(10).await;
        }
        ("running", "snapshot list") => {
            let text = "qemu-img.real: Could not open '/var/lib/vz/images/110/vm-110-disk-0.qcow2': Failed to get shared \
                \"write\" lock Is another process using the image [/var/lib/vz/images/110/vm-110-disk-0.qcow2]?";
            for (kind, why) in [
                ("resize", text),
                (
                    "qmsnapshot",
                    "VM 110 qmp command 'query-savevm' failed - The command query-savevm has not been found",
                ),
            ] {
                bed.lab.with(|w| past_task(w, kind, why));
                bed.sleep(1000).await;
            }
            bed.lab.with(|w| {
                let vm = w.pve.vms.get_mut(&110).unwrap();
                let snap = Snapshot {
                    conf: vm.conf.clone(),
                    volumes: BTreeMap::new(),
                    time: w.now_ms / 1000,
                    description: "d".into(),
                    parent: None,
                    state: Some("prepare".into()),
                    vmstate: None,
                };
                vm.snapshots.insert("s1".into(), snap);
                vm.conf.insert("lock".into(), "snapshot".into());
            });
            // The next report has seen all that.
            bed.sleep(11_000).await;
        }
        ("locks", "PUT config while lock file is held") => bed.lab.with(hold_lock),
        ("locks", "clone while storage lock is held") => bed.lab.with(|w| {
            release_lock(w);
            w.pve.storage_free_ms.insert("local".into(), w.now_ms + 60_000);
        }),
        ("locks", "lock=clone: PUT config") => {
            bed.lab.with(|w| w.pve.storage_free_ms.clear());
            lock(Some("clone"));
        }
        ("locks", "lock=backup: PUT config") => lock(Some("backup")),
        ("locks", "lock=create: PUT config") => lock(Some("create")),
        ("locks", "clone for task stop") => lock(None),
        ("flow", "create template VM from the imported image") => {
            // The recorded creation had the ten-second report in its midst.
            let clock = bed.lab.clock();
            bed.sleep(9_950 - clock.now_ms() % 10_000 % 9_950).await;
        }
        _ => {}
    }
}

/// The bytes of an upload that the recording only describes.
fn upload_body(name: &str) -> Vec<u8> {
    let (content, file, bytes) = if name.contains("seed") {
        ("iso", "seed-k3s-cp1.iso", vec![b'x'; 36_871])
    } else {
        let mut image = vec![0u8; 196_616];
        image[..4].copy_from_slice(b"QFI\xfb");
        image[24..32].copy_from_slice(&(64u64 << 20).to_be_bytes());
        ("import", "tiny.qcow2", image)
    };
    let part = |head: &str| format!("------gpuhostboundary\r\nContent-Disposition: form-data; {head}\r\n");
    let mut body = format!("{}\r\n{content}\r\n", part("name=\"content\"")).into_bytes();
    let head = part(&format!("name=\"filename\"; filename=\"{file}\""));
    body.extend(format!("{head}Content-Type: application/octet-stream\r\n\r\n").into_bytes());
    body.extend(bytes);
    body.extend(b"\r\n------gpuhostboundary--\r\n");
    body
}

/// Credentials and addresses that the replay learns on its way.
#[derive(Default)]
struct Session {
    ticket: String,
    csrf: String,
    bob: String,
    pid: BTreeMap<u64, u64>,
    upid: String,
}

impl Session {
    fn headers(&self, bed: &Bed, name: &str) -> Vec<(&'static str, String)> {
        let cookie = |t: &str| ("cookie", format!("PVEAuthCookie={}", t.replace('=', "%3D").replace('+', "%2B")));
        let token = |t: &str| ("authorization", format!("PVEAPIToken={t}"));
        match name {
            "no auth" | "version no auth" | "login" | "login bad" | "login no realm" | "login bob" | "ticket renew" => {
                vec![]
            }
            "bad token value" => vec![token("root@pam!lab=00000000-0000-0000-0000-000000000000")],
            "unknown token id" => vec![token("root@pam!ghost=00000000-0000-0000-0000-000000000000")],
            "malformed token" => vec![token("garbage")],
            "bearer scheme" => vec![("authorization", "Bearer abc".into())],
            "ticket GET" | "ticket write without CSRF" => vec![cookie(&self.ticket)],
            "ticket write bad CSRF" => vec![cookie(&self.ticket), ("csrfpreventiontoken", "6B02BFE1:bad".into())],
            "ticket write with CSRF" => vec![cookie(&self.ticket), ("csrfpreventiontoken", self.csrf.clone())],
            "garbage ticket" => vec![cookie("PVE:root@pam:00000000::garbage")],
            n if n.starts_with("bob ") && n != "bob token" => vec![token(&format!("bob@pve!ci={}", self.bob))],
            n if n.contains("without rights") || n == "config of an invisible VM" => vec![token("root@pam!none=none")],
            _ => vec![token(bed.secret())],
        }
    }

    /// A recorded path with this world's ids in it.
    fn path(&self, path: &str) -> String {
        if let Some((head, rest)) = path.split_once("/tasks/UPID%3A") {
            let tail = rest.split_once('/').map_or(String::new(), |(_, t)| format!("/{t}"));
            return format!(
                "{head}/tasks/{}{tail}",
                self.upid.replace(':', "%3A").replace('@', "%40").replace('!', "%21")
            );
        }
        if path.contains(":qmclone:9000:root@pam!lab:") {
            return format!("/nodes/pve1/tasks/{}/status", self.upid);
        }
        match path.split_once("exec-status?pid=").and_then(|(h, p)| Some((h, self.pid.get(&p.parse().ok()?)?))) {
            Some((head, pid)) => format!("{head}exec-status?pid={pid}"),
            None => path.to_owned(),
        }
    }

    fn learn(&mut self, name: &str, recorded: &Value, got: &Value) {
        let data = &got["data"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        match name {
            "login" => (self.ticket, self.csrf) = (text(&data["ticket"]), text(&data["CSRFPreventionToken"])),
            "bob token" => self.bob = text(&data["value"]),
            _ if data["pid"].is_u64() && recorded["data"]["pid"].is_u64() => {
                self.pid.insert(recorded["data"]["pid"].as_u64().unwrap(), data["pid"].as_u64().unwrap());
            }
            _ if text(data).starts_with("UPID:") => self.upid = text(data),
            _ => {}
        }
    }
}

/// The body and its type.
fn body_of(s: &Session, r: &Value) -> (Option<Vec<u8>>, Option<String>) {
    let name = r["name"].as_str().unwrap();
    let ctype = r["ctype"].as_str().map(str::to_owned);
    match &r["body"] {
        Value::Null => (None, ctype),
        Value::String(t) if t.starts_with("(multipart") => (Some(upload_body(name)), ctype),
        Value::String(t) => {
            let form = "application/x-www-form-urlencoded".to_owned();
            (Some(t.clone().into_bytes()), ctype.or(Some(form)))
        }
        map if ctype.as_deref() == Some("application/json") => (Some(map.to_string().into_bytes()), ctype),
        map => {
            let mut form = Vec::new();
            for (k, v) in map.as_object().unwrap() {
                let mut v = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                if name == "ticket renew" && k == "password" {
                    v.clone_from(&s.ticket);
                }
                let enc: String = v
                    .bytes()
                    .map(|b| match b {
                        b if b.is_ascii_alphanumeric() => (b as char).to_string(),
                        b => format!("%{b:02X}"),
                    })
                    .collect();
                form.push(format!("{k}={enc}"));
            }
            (Some(form.join("&").into_bytes()), Some("application/x-www-form-urlencoded".into()))
        }
    }
}

/// What of an answer is compared.
fn shape(status: &str, headers: &Value, json: &Value, text: &Value, fixed: &str) -> Value {
    let mut h = BTreeMap::new();
    for k in ["Cache-Control", "Pragma", "Server", "Content-Type"] {
        h.insert(k, headers[k].clone());
    }
    let text = text.as_str().unwrap_or_default();
    json!({ "status": status, "headers": h, "json": normal::value(json, fixed), "text": if json.is_null() { text } else { "" } })
}

async fn send(bed: &Bed, s: &mut Session, r: &Value) -> (Value, u64) {
    let name = r["name"].as_str().unwrap();
    let base = match name {
        n if n.starts_with("extjs") => "/api2/extjs",
        "html root" => "/api2/html",
        "root no api" => "",
        _ => "/api2/json",
    };
    let path = format!("{base}{}", s.path(r["path"].as_str().unwrap()));
    let (body, ctype) = body_of(s, r);
    let (start, lines) = (bed.lab.clock().now_ms(), bed.said().lines().count());
    let a = bed.raw(r["method"].as_str().unwrap(), &path, &s.headers(bed, name), body, ctype).await;
    // The world goes on while nobody asks: the record knows better than the clock.
    let said = bed.said().lines().skip(lines).last().and_then(|l| serde_json::from_str::<Value>(l).ok());
    let refused = a["status"].as_str().is_some_and(|s| s.contains(" 401 "));
    let took = said
        .filter(|_| !refused)
        .and_then(|l| l["took_ms"].as_u64())
        .unwrap_or_else(|| bed.lab.clock().now_ms() - start);
    s.learn(name, &r["json"], &a["json"]);
    (a, took)
}

async fn finished(bed: &Bed, upid: &str) {
    loop {
        if bed.lab.with(|w| w.pve.tasks.get(upid).is_none_or(|t| !t.running())) {
            return;
        }
        bed.sleep(100).await;
    }
}

fn difference(name: &str, got: &Value, want: &Value) -> String {
    let mut lines = vec![name.to_owned()];
    normal::differences("", got, want, &mut lines);
    lines.join("\n    ")
}

async fn replay(bed: &Bed, file: &str, rows: &[Value], wrong: &mut Vec<String>) -> usize {
    let mut s = Session::default();
    let mut same = 0;
    let excused = |name: &str| EXCEPTIONS.iter().any(|e| e.0 == file && e.1 == name);
    let mut mark = None;
    let mut fixed = String::new();
    for r in rows {
        let name = r["name"].as_str().unwrap();
        fixed.push_str(&r["body"].to_string());
        if r["status_json"].is_object() {
            if excused(name) {
                continue;
            }
            let (status, log) = bed.lab.with(|w| {
                let t = &w.pve.tasks[&s.upid];
                let status =
                    json!({ "type": t.kind, "id": t.id, "user": t.user, "tokenid": t.token, "exitstatus": t.exit });
                (status, t.log.clone())
            });
            let want = &r["status_json"];
            let want_status = json!({ "type": want["type"], "id": want["id"], "user": want["user"],
                "tokenid": want["tokenid"], "exitstatus": want["exitstatus"] });
            let lines: Vec<String> =
                r["log"].as_array().unwrap().iter().map(|l| l["t"].as_str().unwrap().to_owned()).collect();
            let got = json!({ "status": status, "log": normal::log(&log) });
            let want = json!({ "status": want_status, "log": normal::log(&lines) });
            if got == want {
                same += 1;
            } else {
                wrong.push(difference(&format!("{file}: {name}"), &got, &want));
            }
            continue;
        }
        before(bed, file, name).await;
        if name == "clone for task stop" {
            mark = Some(bed.lab.clock().busy_guard());
        }
        let skipped = excused(name) && ["resize running", "snapshot running"].contains(&name);
        if skipped {
            continue;
        }
        let (got, took) = send(bed, &mut s, r).await;
        if name == "clone for task stop" {
            bed.lab.clock().advance(Duration::from_millis(200));
            while bed.lab.with(|w| w.pve.tasks[&s.upid].log.is_empty()) {
                tokio::task::yield_now().await;
            }
        } else if got["json"]["data"].as_str().is_some_and(|d| d.starts_with("UPID:")) {
            finished(bed, &s.upid).await;
        }
        if name == "task DELETE (abort)" {
            mark = None;
        }
        if excused(name) {
            continue;
        }
        let a = shape(got["status"].as_str().unwrap(), &got["headers"], &got["json"], &got["text"], &fixed);
        let b = shape(r["status"].as_str().unwrap(), &r["headers"], &r["json"], &r["text"], &fixed);
        let secs = (r["secs"].as_f64().unwrap_or(0.0) * 1000.0) as u64;
        let slow = secs >= 2900 && (took + 1000 < secs || took > secs + 2500);
        if a == b && !slow {
            same += 1;
        } else if slow {
            wrong.push(format!("{file}: {name}: took {took} ms of lab time instead of {secs}"));
        } else {
            wrong.push(difference(&format!("{file}: {name}"), &a, &b));
        }
    }
    drop(mark);
    same
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_request_is_answered_as_recorded() {
    let Some(dir) = data_dir() else {
        println!("skipped: no recordings beside the checkout");
        return;
    };
    let bed = recorded_machine().await;
    let (mut same, mut all, mut wrong) = (0, 0, Vec::new());
    for file in ["errors", "lifecycle", "running", "locks", "flow", "sitelock"] {
        let text = std::fs::read_to_string(dir.join(format!("recorded-{file}.jsonl"))).unwrap();
        let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        stage(&bed, file).await;
        all += rows.len();
        same += replay(&bed, file, &rows, &mut wrong).await;
    }
    for w in &wrong {
        println!("{w}");
    }
    println!("recorded requests answered alike: {same} of {all}, {} known exceptions:", EXCEPTIONS.len());
    for (file, name, why) in EXCEPTIONS {
        println!("  {file}: {name}: {why}");
    }
    assert!(wrong.is_empty(), "{} answers differ, see above", wrong.len());
    assert_eq!(same + EXCEPTIONS.len(), all, "every exception is a recorded request");
}
