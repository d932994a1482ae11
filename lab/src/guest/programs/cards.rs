//! Cards: `lspci`, `nvidia-smi`.
use super::{Body, Call, Program, now};
use crate::smi::{Smi, guest_address};

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

fn nvidia_smi(c: &mut Call) -> i32 {
    let vmid = c.m.vmid;
    let smi = c.world(|w| Smi::of(w, vmid, None));
    let asked = !matches!(c.args.first().map(String::as_str), Some("dmon" | "pmon"));
    let mode = c.value(&["-c", "--compute-mode"]).filter(|_| asked && smi.trouble().is_none());
    if let Some(mode) = mode {
        if !c.must_be_root("Unable to set the compute mode: Insufficient Permissions") {
            return 4;
        }
        let exclusive = matches!(mode.as_str(), "3" | "EXCLUSIVE_PROCESS");
        c.world(|w| w.change_cards_of(vmid, |card| card.exclusive = exclusive));
        let word = if exclusive { "EXCLUSIVE_PROCESS" } else { "DEFAULT" };
        for at in smi.places() {
            c.line(&format!("Set compute mode to {word} for GPU 00000000:{at}."));
        }
        c.line("All done.");
        return 0;
    }
    let args: Vec<String> = c.args.to_vec();
    match smi.say(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Some((0, text)) => {
            c.print(&text);
            0
        }
        Some((code, text)) => c.fail(code, text.trim_end()),
        None => c.unsimulated(&args.join(" ")),
    }
}
