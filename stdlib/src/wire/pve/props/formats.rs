//! The formats of VM options that are property strings.
use super::checks as c;
use super::{Format, Prop, Rule, Ty};

const fn p(name: &'static str, ty: Ty, rule: Rule) -> Prop {
    Prop { name, ty, rule, min: None, max: None, max_len: None, required: false, default_key: false, requires: None }
}
const fn flag(name: &'static str) -> Prop {
    p(name, Ty::Bool, Rule::Any)
}
const fn int(name: &'static str, min: Option<f64>, max: Option<f64>) -> Prop {
    Prop { min, max, ..p(name, Ty::Int, Rule::Any) }
}
const fn num(name: &'static str) -> Prop {
    p(name, Ty::Num, Rule::Any)
}
const fn text(name: &'static str) -> Prop {
    p(name, Ty::Str, Rule::Any)
}
const fn one(name: &'static str, list: &'static [&'static str]) -> Prop {
    p(name, Ty::Str, Rule::OneOf(list))
}
const fn pat(name: &'static str, f: fn(&str) -> bool) -> Prop {
    p(name, Ty::Str, Rule::Pattern(f))
}
const fn fmt(name: &'static str, f: fn(&str) -> Result<(), String>) -> Prop {
    p(name, Ty::Str, Rule::Format(f))
}
const fn key(prop: Prop) -> Prop {
    Prop { default_key: true, ..prop }
}
const fn must(prop: Prop) -> Prop {
    Prop { required: true, ..prop }
}
const fn with(prop: Prop, needs: &'static str) -> Prop {
    Prop { requires: Some(needs), ..prop }
}
const fn short(prop: Prop, max: usize) -> Prop {
    Prop { max_len: Some(max), ..prop }
}

type Aliases = &'static [(&'static str, &'static str, Option<&'static str>)];
const NO_ALIASES: Aliases = &[];
const FILE: Aliases = &[("volume", "file", None)];
const DRIVE_ALIASES: Aliases = &[
    ("volume", "file", None),
    ("bps_rd_length", "bps_rd_max_length", None),
    ("bps_wr_length", "bps_wr_max_length", None),
    ("iops_rd_length", "iops_rd_max_length", None),
    ("iops_wr_length", "iops_wr_max_length", None),
];
const IMAGE_FORMATS: &[&str] = &["raw", "qcow", "qed", "qcow2", "vmdk", "cloop"];
const ONE: Option<f64> = Some(1.0);

macro_rules! drive {
    ($($extra:expr),* $(,)?) => {
        &[
            must(key(fmt("file", c::volid_or_path))),
            one("aio", &["native", "threads", "io_uring"]),
            flag("backup"),
            int("bps", None, None),
            int("bps_max_length", ONE, None),
            int("bps_rd", None, None),
            int("bps_rd_max_length", ONE, None),
            int("bps_wr", None, None),
            int("bps_wr_max_length", ONE, None),
            one("cache", &["none", "writethrough", "writeback", "unsafe", "directsync"]),
            flag("detect_zeroes"),
            one("discard", &["ignore", "on"]),
            one("format", IMAGE_FORMATS),
            fmt("import-from", c::volid_or_path),
            int("iops", None, None),
            int("iops_max", None, None),
            int("iops_max_length", ONE, None),
            int("iops_rd", None, None),
            int("iops_rd_max", None, None),
            int("iops_rd_max_length", ONE, None),
            int("iops_wr", None, None),
            int("iops_wr_max", None, None),
            int("iops_wr_max_length", ONE, None),
            num("mbps"),
            num("mbps_max"),
            num("mbps_rd"),
            num("mbps_rd_max"),
            num("mbps_wr"),
            num("mbps_wr_max"),
            one("media", &["cdrom", "disk"]),
            flag("replicate"),
            one("rerror", &["ignore", "report", "stop"]),
            short(fmt("serial", c::urlencoded), 60),
            flag("shared"),
            fmt("size", c::size),
            flag("snapshot"),
            one("werror", &["enospc", "ignore", "report", "stop"]),
            $($extra),*
        ]
    };
}

const IDE: &[Prop] = drive!(short(fmt("model", c::urlencoded), 120), flag("ssd"), pat("wwn", c::wwn));
const SATA: &[Prop] = drive!(flag("ssd"), pat("wwn", c::wwn));
const SCSI: &[Prop] = drive!(
    flag("iothread"),
    short(text("product"), 16),
    int("queues", Some(2.0), None),
    flag("ro"),
    flag("scsiblock"),
    flag("ssd"),
    short(text("vendor"), 8),
    pat("wwn", c::wwn),
);
const VIRTIO: &[Prop] = drive!(flag("iothread"), flag("ro"));
const EFI: &[Prop] = &[
    must(key(fmt("file", c::volid_or_path))),
    one("efitype", &["2m", "4m"]),
    one("format", IMAGE_FORMATS),
    fmt("import-from", c::volid_or_path),
    one("ms-cert", &["2011", "2023", "2023w", "2023k"]),
    flag("pre-enrolled-keys"),
    fmt("size", c::size),
];
const TPM: &[Prop] = &[
    must(key(fmt("file", c::volid_or_path))),
    one("format", &["raw", "qcow2", "vmdk"]),
    fmt("import-from", c::volid_or_path),
    fmt("size", c::size),
    one("version", &["v1.2", "v2.0"]),
];
const UNUSED: &[Prop] = &[must(key(fmt("file", c::volid)))];
const MODELS: &[&str] = &[
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
];
const NET_ALIASES: Aliases = &[
    ("e1000", "macaddr", Some("model")),
    ("e1000-82540em", "macaddr", Some("model")),
    ("e1000-82544gc", "macaddr", Some("model")),
    ("e1000-82545em", "macaddr", Some("model")),
    ("e1000e", "macaddr", Some("model")),
    ("i82551", "macaddr", Some("model")),
    ("i82557b", "macaddr", Some("model")),
    ("i82559er", "macaddr", Some("model")),
    ("ne2k_isa", "macaddr", Some("model")),
    ("ne2k_pci", "macaddr", Some("model")),
    ("pcnet", "macaddr", Some("model")),
    ("rtl8139", "macaddr", Some("model")),
    ("virtio", "macaddr", Some("model")),
    ("vmxnet3", "macaddr", Some("model")),
];
const NET: &[Prop] = &[
    must(key(one("model", MODELS))),
    fmt("bridge", c::bridge),
    flag("firewall"),
    flag("link_down"),
    fmt("macaddr", c::mac),
    int("mtu", ONE, Some(65520.0)),
    int("queues", Some(0.0), Some(64.0)),
    Prop { min: Some(0.0), ..num("rate") },
    int("tag", ONE, Some(4094.0)),
    pat("trunks", c::number_ranges),
];
const HOSTPCI: &[Prop] = &[
    key(pat("host", c::pci_hosts)),
    pat("device-id", c::pci_id),
    one("driver", &["vfio", "keep"]),
    flag("legacy-igd"),
    fmt("mapping", c::config_id),
    text("mdev"),
    flag("pcie"),
    flag("rombar"),
    text("romfile"),
    pat("sub-device-id", c::pci_id),
    pat("sub-vendor-id", c::pci_id),
    pat("vendor-id", c::pci_id),
    flag("x-vga"),
];
const IPCONFIG: &[Prop] = &[
    with(fmt("gw", c::ipv4), "ip"),
    with(fmt("gw6", c::ipv6), "ip6"),
    fmt("ip", c::ipv4_config),
    fmt("ip6", c::ipv6_config),
];
const AGENT: &[Prop] =
    &[must(key(flag("enabled"))), flag("freeze-fs"), flag("fstrim_cloned_disks"), one("type", &["virtio", "isa"])];
const AGENT_ALIASES: Aliases = &[("freeze-fs-on-backup", "freeze-fs", None), ("guest-fsfreeze", "freeze-fs", None)];
const BOOT: &[Prop] = &[key(pat("legacy", c::legacy_boot)), fmt("order", c::boot_list)];
const CPU: &[Prop] = &[
    key(text("cputype")),
    text("flags"),
    int("guest-phys-bits", Some(32.0), Some(64.0)),
    flag("hidden"),
    short(text("hv-vendor-id"), 12),
    text("phys-bits"),
    text("reported-model"),
];
const MACHINE: &[Prop] = &[
    key(short(pat("type", c::machine_type), 40)),
    Prop { min: Some(32.0), max: Some(64.0), ..num("aw-bits") },
    flag("enable-s3"),
    flag("enable-s4"),
    one("viommu", &["intel", "virtio"]),
];
const MEMORY: &[Prop] = &[must(key(int("current", Some(16.0), None)))];
const VGA: &[Prop] = &[
    key(one(
        "type",
        &[
            "cirrus",
            "qxl",
            "qxl2",
            "qxl3",
            "qxl4",
            "none",
            "serial0",
            "serial1",
            "serial2",
            "serial3",
            "std",
            "virtio",
            "virtio-gl",
            "vmware",
        ],
    )),
    one("clipboard", &["vnc"]),
    int("memory", Some(4.0), Some(512.0)),
];
const NUMA: &[Prop] = &[
    must(pat("cpus", c::number_ranges)),
    pat("hostnodes", c::number_ranges),
    num("memory"),
    one("policy", &["preferred", "bind", "interleave"]),
];
const USB: &[Prop] = &[key(pat("host", c::usb_host)), fmt("mapping", c::config_id), flag("usb3")];
const RNG: &[Prop] = &[
    must(key(one("source", &["/dev/urandom", "/dev/random", "/dev/hwrng"]))),
    int("max_bytes", Some(0.0), None),
    int("period", Some(0.0), None),
];
const WATCHDOG: &[Prop] = &[
    key(one("model", &["i6300esb", "ib700"])),
    one("action", &["reset", "shutdown", "poweroff", "pause", "debug", "none"]),
];
const CICUSTOM: &[Prop] =
    &[fmt("meta", c::volid), fmt("network", c::volid), fmt("user", c::volid), fmt("vendor", c::volid)];
const SMBIOS: &[Prop] = &[
    text("uuid"),
    text("version"),
    text("serial"),
    text("manufacturer"),
    text("product"),
    text("sku"),
    text("family"),
    flag("base64"),
];
const AUDIO: &[Prop] =
    &[must(one("device", &["ich9-intel-hda", "intel-hda", "AC97"])), one("driver", &["spice", "none"])];
const IVSHMEM: &[Prop] = &[must(int("size", ONE, None)), text("name")];
const SPICE: &[Prop] = &[flag("foldersharing"), one("videostreaming", &["off", "all", "filter"])];
const VIRTIOFS: &[Prop] = &[
    must(key(fmt("dirid", c::config_id))),
    one("cache", &["auto", "always", "metadata", "never"]),
    flag("direct-io"),
    flag("expose-acl"),
    flag("expose-xattr"),
];
const MAP: &[Prop] = &[
    must(fmt("node", c::dns_name)),
    must(text("path")),
    must(text("id")),
    text("description"),
    int("iommugroup", None, None),
    text("subsystem-id"),
];

const fn f(props: &'static [Prop], aliases: Aliases) -> Format {
    Format { props, aliases, whole: None }
}

/// The property format of a config key, if its value is a property string. `map` is the format of the
/// entries of a PCI resource mapping.
#[must_use]
pub fn format_of(key: &str) -> Option<&'static Format> {
    macro_rules! table {
        ($base:expr; $($pat:pat => $f:expr),+ $(,)?) => {
            match $base { $($pat => { const F: Format = $f; Some(&F) })+ _ => None }
        };
    }
    table!(super::numbered(key);
        ("ide", Some(0..=3)) => f(IDE, DRIVE_ALIASES),
        ("sata", Some(0..=5)) => f(SATA, DRIVE_ALIASES),
        ("scsi", Some(0..=30)) => f(SCSI, DRIVE_ALIASES),
        ("virtio", Some(0..=15)) => f(VIRTIO, DRIVE_ALIASES),
        ("efidisk", Some(0)) => f(EFI, FILE),
        ("tpmstate", Some(0)) => f(TPM, FILE),
        ("unused", Some(0..=255)) => f(UNUSED, FILE),
        ("net", Some(0..=31)) => f(NET, NET_ALIASES),
        ("hostpci", Some(0..=15)) => f(HOSTPCI, NO_ALIASES),
        ("ipconfig", Some(0..=31)) => f(IPCONFIG, NO_ALIASES),
        ("agent", None) => f(AGENT, AGENT_ALIASES),
        ("boot", None) => f(BOOT, NO_ALIASES),
        ("cpu", None) => Format { props: CPU, aliases: NO_ALIASES, whole: Some(c::cpu) },
        ("machine", None) => f(MACHINE, NO_ALIASES),
        ("memory", None) => f(MEMORY, NO_ALIASES),
        ("vga", None) => f(VGA, NO_ALIASES),
        ("numa", Some(0..=7)) => f(NUMA, NO_ALIASES),
        ("usb", Some(0..=13)) => f(USB, NO_ALIASES),
        ("rng", Some(0)) => f(RNG, NO_ALIASES),
        ("watchdog", None) => f(WATCHDOG, NO_ALIASES),
        ("cicustom", None) => f(CICUSTOM, NO_ALIASES),
        ("smbios", Some(1)) => f(SMBIOS, NO_ALIASES),
        ("audio", Some(0)) => f(AUDIO, NO_ALIASES),
        ("ivshmem", None) => f(IVSHMEM, NO_ALIASES),
        ("spice_enhancements", None) => f(SPICE, NO_ALIASES),
        ("virtiofs", Some(0..=9)) => f(VIRTIOFS, NO_ALIASES),
        ("map", None) => f(MAP, NO_ALIASES),
    )
}
