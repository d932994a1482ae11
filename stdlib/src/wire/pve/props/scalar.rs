//! VM options that are single values, and the check of any option by its name.
use super::checks as c;
use super::{Prop, Rule, Ty, format_of, numbered};

/// Type and rule of a VM option that is not a property string.
pub type Scalar = Prop;

const fn s(ty: Ty, rule: Rule) -> Scalar {
    Prop {
        name: "",
        ty,
        rule,
        min: None,
        max: None,
        max_len: None,
        required: false,
        default_key: false,
        requires: None,
    }
}
const fn range(min: Option<f64>, max: Option<f64>) -> Scalar {
    Prop { min, max, ..s(Ty::Int, Rule::Any) }
}

const LOCKS: &[&str] =
    &["backup", "clone", "create", "migrate", "rollback", "snapshot", "snapshot-delete", "suspending", "suspended"];
const OSTYPES: &[&str] =
    &["other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26", "solaris"];
const SCSIHW: &[&str] = &["lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi"];
const KEYBOARDS: &[&str] = &[
    "de", "de-ch", "da", "en-gb", "en-us", "es", "fi", "fr", "fr-be", "fr-ca", "fr-ch", "hu", "is", "it", "ja", "lt",
    "mk", "nl", "no", "pl", "pt", "pt-br", "sv", "sl", "tr",
];

fn serial_port(v: &str) -> bool {
    v == "socket" || v.strip_prefix("/dev/").is_some_and(|r| !r.is_empty())
}
fn parallel_port(v: &str) -> bool {
    v.starts_with("/dev/parport") || v.starts_with("/dev/usb/lp")
}
fn vmgenid(v: &str) -> bool {
    v == "0" || v == "1" || uuid::Uuid::try_parse(v).is_ok()
}

/// Type and rule of a single-valued VM option.
#[must_use]
pub fn scalar_of(key: &str) -> Option<Scalar> {
    let zero = Some(0.0);
    let one = Some(1.0);
    Some(match numbered(key) {
        (
            "acpi" | "autostart" | "ciupgrade" | "freeze" | "keephugepages" | "kvm" | "localtime" | "numa" | "onboot"
            | "protection" | "reboot" | "tablet" | "tdf" | "template" | "allow-ksm",
            None,
        ) => s(Ty::Bool, Rule::Any),
        ("balloon", None) => range(zero, None),
        ("cores" | "sockets" | "vcpus" | "smp", None) => range(one, None),
        ("cpuunits", None) => range(one, Some(262_144.0)),
        ("shares", None) => range(zero, Some(50_000.0)),
        ("migrate_speed", None) => range(zero, None),
        ("cpulimit", None) => Prop { min: zero, max: Some(128.0), ..s(Ty::Num, Rule::Any) },
        ("migrate_downtime", None) => Prop { min: zero, ..s(Ty::Num, Rule::Any) },
        ("bios", None) => s(Ty::Str, Rule::OneOf(&["seabios", "ovmf"])),
        ("arch", None) => s(Ty::Str, Rule::OneOf(&["x86_64", "aarch64"])),
        ("hugepages", None) => s(Ty::Str, Rule::OneOf(&["any", "2", "1024"])),
        ("citype", None) => s(Ty::Str, Rule::OneOf(&["configdrive2", "nocloud", "opennebula"])),
        ("lock", None) => s(Ty::Str, Rule::OneOf(LOCKS)),
        ("ostype", None) => s(Ty::Str, Rule::OneOf(OSTYPES)),
        ("scsihw", None) => s(Ty::Str, Rule::OneOf(SCSIHW)),
        ("keyboard", None) => s(Ty::Str, Rule::OneOf(KEYBOARDS)),
        ("description", None) => Prop { max_len: Some(8192), ..s(Ty::Str, Rule::Any) },
        ("name", None) => s(Ty::Str, Rule::Format(c::dns_name)),
        ("tags", None) => s(Ty::Str, Rule::Format(c::tags)),
        ("hotplug", None) => s(Ty::Str, Rule::Format(c::hotplug)),
        ("startup", None) => s(Ty::Str, Rule::Format(c::startup)),
        ("affinity", None) => s(Ty::Str, Rule::Format(c::cpuset)),
        ("sshkeys", None) => s(Ty::Str, Rule::Format(c::urlencoded)),
        ("hookscript", None) => s(Ty::Str, Rule::Format(c::volid)),
        ("vmstatestorage", None) => s(Ty::Str, Rule::Format(c::storage_id)),
        ("vmgenid", None) => s(Ty::Str, Rule::Pattern(vmgenid)),
        ("serial", Some(0..=3)) => s(Ty::Str, Rule::Pattern(serial_port)),
        ("parallel", Some(0..=2)) => s(Ty::Str, Rule::Pattern(parallel_port)),
        (
            "args" | "bootdisk" | "cdrom" | "cipassword" | "ciuser" | "nameserver" | "searchdomain" | "startdate"
            | "runningmachine" | "meta" | "parent" | "amd-sev" | "intel-tdx",
            None,
        ) => s(Ty::Str, Rule::Any),
        _ => return None,
    })
}

/// Checks the value of any VM option as the server does for `errors[key]`.
///
/// # Errors
/// The server's message, for example `value must have a minimum value of 1`.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    if let Some(f) = format_of(key).filter(|_| key != "map") {
        if key.starts_with("ipconfig") && value.is_empty() {
            return Ok(());
        }
        return f.parse(value, key).map(|_| ()).map_err(|e| format!("invalid format - {e}"));
    }
    match scalar_of(key) {
        Some(p) => p.check(value),
        None => Err("property is not defined in schema and the schema does not allow additional properties".into()),
    }
}
