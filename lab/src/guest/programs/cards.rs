//! Cards: `lspci`, `nvidia-smi`.
use super::{Body, Call, Program, now};
use crate::spec::PciSpec;

// The table of nvidia-smi 580.
const EDGE: &str = "+-----------------------------------------------------------------------------------------+";
const RULE: &str = "+-----------------------------------------+------------------------+----------------------+";
const HEAD: &str = "\
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|";
const PROCESSES: &str = "
+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|  No running processes found                                                             |
+-----------------------------------------------------------------------------------------+";

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/lspci", lspci),
    // Comes with the driver, not with a package.
    Program { path: "/usr/bin/nvidia-smi", package: "(nvidia driver)", body: Body::Now(nvidia_smi) },
];

struct Card {
    address: String,
    ids: (String, String),
    class: (&'static str, String),
    text: String,
    driver: Option<&'static str>,
    sub: (String, String),
}

fn class_name(class: &str) -> &'static str {
    match class.get(..4).unwrap_or_default() {
        "0302" => "3D controller",
        "0300" => "VGA compatible controller",
        "0200" => "Ethernet controller",
        "0403" => "Audio device",
        "0108" => "Non-Volatile memory controller",
        _ => "Device",
    }
}

fn short(v: &str) -> String {
    v.trim_start_matches("0x").to_lowercase()
}

fn cards(c: &Call) -> Vec<Card> {
    let fixed = [
        (
            "00:00.0",
            "8086",
            "29c0",
            "0600",
            "Host bridge",
            "Intel Corporation 82G33/G31/P35/P31 Express DRAM Controller",
            None,
        ),
        ("00:01.0", "1234", "1111", "0300", "VGA compatible controller", "Device 1234:1111", Some("bochs-drm")),
        (
            "00:1f.0",
            "8086",
            "2918",
            "0601",
            "ISA bridge",
            "Intel Corporation 82801IB (ICH9) LPC Interface Controller",
            Some("lpc_ich"),
        ),
        ("05:01.0", "1af4", "1004", "0100", "SCSI storage controller", "Red Hat, Inc. Virtio SCSI", Some("virtio-pci")),
        (
            "06:12.0",
            "1af4",
            "1000",
            "0200",
            "Ethernet controller",
            "Red Hat, Inc. Virtio network device",
            Some("virtio-pci"),
        ),
    ];
    let none = (String::new(), String::new());
    let mut all: Vec<Card> = fixed
        .iter()
        .map(|f| Card {
            address: f.0.into(),
            ids: (f.1.into(), f.2.into()),
            class: (f.4, f.3.into()),
            text: f.5.into(),
            driver: f.6,
            sub: none.clone(),
        })
        .collect();
    let (pci, loaded) = c.guest(|g| (g.spec.pci.clone(), g.facts.nvidia_driver.is_some())).unwrap_or_default();
    for (i, p) in pci.iter().enumerate() {
        let class = short(&p.class);
        all.push(Card {
            address: guest_address(i),
            ids: (short(&p.vendor), short(&p.device)),
            class: (class_name(&class), class.get(..4).unwrap_or_default().to_owned()),
            text: format!("{} {}", p.vendor_name, p.device_name),
            driver: (loaded && short(&p.vendor) == "10de").then_some("nvidia"),
            sub: (short(&p.subsystem_vendor), short(&p.subsystem_device)),
        });
    }
    all
}

/// Where the n-th passed-through card sits in the guest.
fn guest_address(i: usize) -> String {
    format!("{:02x}:00.0", i + 1)
}

fn lspci(c: &mut Call) -> i32 {
    let flags: String = c
        .args
        .iter()
        .filter(|a| a.starts_with('-') && !a.starts_with("-d") && !a.starts_with("-s"))
        .map(|a| &a[1..])
        .collect();
    let want = c.value(&["-d"]);
    let slot = c.value(&["-s"]);
    let hit = |x: &Card| {
        let by_id = want.as_ref().is_none_or(|w| {
            let mut p = w.split(':');
            let (v, d, k) = (p.next().unwrap_or_default(), p.next().unwrap_or_default(), p.next().unwrap_or_default());
            (v.is_empty() || v == "*" || v.eq_ignore_ascii_case(&x.ids.0))
                && (d.is_empty() || d == "*" || d.eq_ignore_ascii_case(&x.ids.1))
                && (k.is_empty() || x.class.1.starts_with(k))
        });
        by_id
            && slot.as_ref().is_none_or(|s| {
                s.trim_start_matches("0000:").trim_end_matches(".0") == x.address.trim_end_matches(".0")
            })
    };
    let domain = flags.contains('D');
    for x in cards(c).into_iter().filter(hit) {
        let at = if domain { format!("0000:{}", x.address) } else { x.address.clone() };
        if flags.matches('m').count() > 0 {
            c.line(&format!(
                "{at} \"{} [{}]\" \"{} [{}]\" \"{} [{}]\"",
                x.class.0, x.class.1, x.text, x.ids.0, x.text, x.ids.1
            ));
            continue;
        }
        let line = match flags.matches('n').count() {
            0 => format!("{at} {}: {}", x.class.0, x.text),
            1 => format!("{at} {}: {}:{}", x.class.1, x.ids.0, x.ids.1),
            _ => format!("{at} {} [{}]: {} [{}:{}]", x.class.0, x.class.1, x.text, x.ids.0, x.ids.1),
        };
        c.line(&format!("{line}{}", if x.ids.0 == "10de" { " (rev a1)" } else { "" }));
        if flags.contains('k') || flags.contains('v') {
            if !x.sub.0.is_empty() {
                c.line(&format!("\tSubsystem: [{}:{}]", x.sub.0, x.sub.1));
            }
            if let Some(d) = x.driver {
                c.line(&format!("\tKernel driver in use: {d}"));
            }
            if x.ids.0 == "10de" {
                c.line(if x.driver.is_some() {
                    "\tKernel modules: nouveau, nvidia_drm, nvidia"
                } else {
                    "\tKernel modules: nouveau"
                });
            }
        }
    }
    0
}

fn memory(p: &PciSpec) -> u64 {
    if p.device_name.contains("80GB") || p.device_name.contains("80 GB") { 81_920 } else { 40_960 }
}

fn model(p: &PciSpec) -> String {
    let name = p.device_name.split('[').nth(1).and_then(|n| n.split(']').next()).unwrap_or(&p.device_name);
    if name.contains("A100") { format!("NVIDIA A100-PCIE-{}GB", memory(p) / 1024) } else { format!("NVIDIA {name}") }
}

fn nvidia_smi(c: &mut Call) -> i32 {
    let Some(g) = c.guest(|g| g.clone()) else { return 1 };
    let Some(driver) = g.facts.nvidia_driver.clone() else {
        return c.fail(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.");
    };
    let cards: Vec<PciSpec> = g.spec.pci.iter().filter(|p| short(&p.vendor) == "10de").cloned().collect();
    if cards.is_empty() {
        return c.fail(6, "No devices were found");
    }
    let uuid = |i: usize| {
        let h = crate::kube::text::sha256(&format!("{}-{}", g.spec.uuid, cards[i].address));
        format!("GPU-{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..32])
    };
    let vmid = c.m.vmid;
    let states: Vec<crate::card::Card> = c.world(|w| w.cards_of(vmid)).into_iter().map(|(_, s)| s).collect();
    let state = |i: usize| states.get(i).cloned().unwrap_or_default();
    if let Some(mode) = c.value(&["-c", "--compute-mode"]) {
        if !c.must_be_root("Unable to set the compute mode: Insufficient Permissions") {
            return 4;
        }
        let exclusive = matches!(mode.as_str(), "3" | "EXCLUSIVE_PROCESS");
        c.world(|w| w.change_cards_of(vmid, |card| card.exclusive = exclusive));
        for i in 0..cards.len() {
            let word = if exclusive { "EXCLUSIVE_PROCESS" } else { "DEFAULT" };
            c.line(&format!("Set compute mode to {word} for GPU 00000000:{}.", guest_address(i).to_uppercase()));
        }
        c.line("All done.");
        return 0;
    }
    if c.has(&["-L", "--list-gpus"]) {
        for (i, p) in cards.iter().enumerate() {
            c.line(&format!("GPU {i}: {} (UUID: {})", model(p), uuid(i)));
        }
        return 0;
    }
    if let Some(q) = c.value(&["--query-gpu"]) {
        let format = c.value(&["--format"]).unwrap_or_default();
        let units = !format.contains("nounits");
        let keys: Vec<&str> = q.split(',').map(str::trim).collect();
        if !format.contains("noheader") {
            c.line(&keys.join(", "));
        }
        let with = |n: u64, u: &str| if units { format!("{n} {u}") } else { n.to_string() };
        for (i, p) in cards.iter().enumerate() {
            let row: Vec<String> = keys
                .iter()
                .map(|k| match *k {
                    "index" => i.to_string(),
                    "count" => cards.len().to_string(),
                    "name" | "gpu_name" => model(p),
                    "uuid" | "gpu_uuid" => uuid(i),
                    "driver_version" => driver.clone(),
                    "memory.total" => with(memory(p), "MiB"),
                    "memory.used" => with(4, "MiB"),
                    "memory.free" => with(memory(p) - 600, "MiB"),
                    "utilization.gpu" | "utilization.memory" => with(0, "%"),
                    "temperature.gpu" => "34".into(),
                    "power.draw" => with(36, "W"),
                    "power.limit" => with(250, "W"),
                    "pci.bus_id" | "gpu_bus_id" => format!("00000000:{}", guest_address(i).to_uppercase()),
                    "pstate" => "P0".into(),
                    "mig.mode.current" => if state(i).mig { "Enabled" } else { "Disabled" }.into(),
                    "mig.mode.pending" => if state(i).mig_next { "Enabled" } else { "Disabled" }.into(),
                    "compute_mode" => if state(i).exclusive { "Exclusive_Process" } else { "Default" }.into(),
                    "compute_cap" => "8.0".into(),
                    "ecc.errors.uncorrected.volatile.total" => "0".into(),
                    _ => "[N/A]".into(),
                })
                .collect();
            c.line(&row.join(", "));
        }
        return 0;
    }
    c.line(&format!("{EDGE}\n| NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: 13.0     |\n{HEAD}"));
    for (i, p) in cards.iter().enumerate() {
        let mode = if state(i).exclusive { "E. Process" } else { "Default" };
        let mig = if state(i).mig { "Enabled" } else { "Disabled" };
        let at = guest_address(i).to_uppercase();
        c.line(&format!("|{i:>4}  {:<31}On  |   00000000:{at} Off |                    0 |", model(p)));
        let used = format!("4MiB / {:>6}MiB", memory(p));
        c.line(&format!("| N/A   34C    P0             36W /  250W |{used:>23} |      0%{mode:>13} |"));
        c.line(&format!("|{:41}|{:24}|{mig:>21} |\n{RULE}", "", ""));
    }
    c.line(PROCESSES);
    0
}
