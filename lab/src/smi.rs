//! What `nvidia-smi` prints of a set of cards, on machines and in containers. Grade: docs (NVIDIA's driver 580); the
//! layouts of `topo`, `dmon` and `pmon` are from memory.
use crate::card::Card;
use crate::guest;
use crate::spec::PciSpec;
use crate::world::World;

/// The CUDA version that the driver brings.
pub const CUDA: &str = "13.0";
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
const LEGEND: &str = "
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
";
const DMON: &str = "\
# gpu    pwr  gtemp  mtemp     sm    mem    enc    dec    jpg    ofa   mclk   pclk 
# Idx      W      C      C      %      %      %      %      %      %    MHz    MHz ";
const PMON: &str = "\
# gpu         pid   type     sm    mem    enc    dec    jpg    ofa    command 
# Idx           #    C/G      %      %      %      %      %      %    name ";

/// Where the n-th passed-through card sits in its guest.
pub(crate) fn guest_address(i: usize) -> String {
    format!("{:02x}:00.0", i + 1)
}

/// What the tool says and how it ends; `None` for words that are not simulated.
pub(crate) type Said = Option<(i32, String)>;

struct Gpu {
    name: String,
    memory: u64,
    bus: String,
    uuid: String,
    state: Card,
}

/// The cards that the tool sees.
pub(crate) struct Smi {
    driver: Option<String>,
    gpus: Vec<Gpu>,
}

fn memory(p: &PciSpec) -> u64 {
    if p.device_name.contains("80GB") || p.device_name.contains("80 GB") { 81_920 } else { 40_960 }
}

fn model(p: &PciSpec) -> String {
    let name = p.device_name.split('[').nth(1).and_then(|n| n.split(']').next()).unwrap_or(&p.device_name);
    if name.contains("A100") { format!("NVIDIA A100-PCIE-{}GB", memory(p) / 1024) } else { format!("NVIDIA {name}") }
}

impl Smi {
    /// The cards of a machine; those of these places, or all of them.
    pub(crate) fn of(w: &World, vmid: u32, places: Option<&[usize]>) -> Smi {
        let Some(g) = w.guests.get(&vmid) else { return Smi { driver: None, gpus: Vec::new() } };
        let states = w.cards_of(vmid);
        let all = g.spec.pci.iter().filter(|p| guest::is_nvidia(p)).enumerate();
        let seen = all.filter(|(i, _)| places.is_none_or(|l| l.contains(i)));
        let gpus = seen.map(|(i, p)| {
            let h = crate::kube::text::sha256(&format!("{}-{}", g.spec.uuid, p.address));
            Gpu {
                name: model(p),
                memory: memory(p),
                bus: guest_address(i).to_uppercase(),
                uuid: format!("GPU-{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..32]),
                state: states.get(i).map(|s| s.1.clone()).unwrap_or_default(),
            }
        });
        Smi { driver: g.facts.nvidia_driver.clone(), gpus: gpus.collect() }
    }

    /// Where the cards sit.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.gpus.iter().map(|g| g.bus.as_str())
    }

    /// Why the tool has nothing to say: its exit code and its words.
    pub(crate) fn trouble(&self) -> Option<(i32, String)> {
        if self.driver.is_none() {
            let text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n";
            return Some((9, text.to_owned()));
        }
        self.gpus.is_empty().then(|| (6, "No devices were found\n".to_owned()))
    }

    /// What the tool says to these words.
    pub(crate) fn say(&self, args: &[&str]) -> Said {
        if let Some(trouble) = self.trouble() {
            return Some(trouble);
        }
        let value = |names: &[&str]| {
            let at = args.iter().position(|a| names.contains(a));
            let inline = args.iter().find_map(|a| a.split_once('=').filter(|(n, _)| names.contains(n)).map(|p| p.1));
            inline.or_else(|| at.and_then(|i| args.get(i + 1).copied()))
        };
        let chosen: Vec<(usize, &Gpu)> = match value(&["-i", "--id"]) {
            None => self.gpus.iter().enumerate().collect(),
            Some(ids) => {
                let meant = |i: usize, g: &Gpu| {
                    ids.split(',').any(|id| id == i.to_string() || id == g.uuid || id.ends_with(&g.bus))
                };
                self.gpus.iter().enumerate().filter(|(i, g)| meant(*i, g)).collect()
            }
        };
        if chosen.is_empty() {
            return Some((6, "No devices were found\n".to_owned()));
        }
        let count = value(&["-c", "--count"]).and_then(|n| n.parse::<usize>().ok());
        let text = match args {
            ["topo", "-m" | "--matrix"] => self.matrix(),
            ["dmon", ..] => rows(DMON, count?, &chosen, |i| {
                format!("{i:>5}     36     34     34      0      0      0      0      0      0   1215    210 ")
            }),
            ["pmon", ..] => rows(PMON, count?, &chosen, |i| {
                format!("{i:>5}          -     -      -      -      -      -      -      -    -              ")
            }),
            _ if args.iter().any(|a| matches!(*a, "-L" | "--list-gpus")) => {
                chosen.iter().map(|(i, g)| format!("GPU {i}: {} (UUID: {})\n", g.name, g.uuid)).collect()
            }
            _ => match value(&["--query-gpu"]) {
                Some(q) => match unknown_field(q) {
                    Some(why) => return Some((2, why)),
                    None => self.query(q, value(&["--format"]).unwrap_or_default(), &chosen),
                },
                None if value(&["--query-compute-apps"]).is_some() => {
                    let q = value(&["--query-compute-apps"]).unwrap_or_default();
                    computing(q, value(&["--format"]).unwrap_or_default())
                }
                None if args.is_empty() || matches!(args, ["-i" | "--id", _]) || args[0].starts_with("--id=") => {
                    self.table(&chosen)
                }
                None => return None,
            },
        };
        Some((0, text))
    }

    fn query(&self, q: &str, format: &str, chosen: &[(usize, &Gpu)]) -> String {
        let units = !format.contains("nounits");
        let keys: Vec<&str> = q.split(',').map(str::trim).collect();
        let with = |n: u64, u: &str| if units { format!("{n} {u}") } else { n.to_string() };
        let with_hundredths = |n: u64, u: &str| if units { format!("{n}.00 {u}") } else { format!("{n}.00") };
        let yes = |on: bool| if on { "Enabled" } else { "Disabled" }.to_owned();
        let field = |i: usize, g: &Gpu, k: &str| match k {
            "index" => i.to_string(),
            "count" => self.gpus.len().to_string(),
            "name" | "gpu_name" => g.name.clone(),
            "uuid" | "gpu_uuid" => g.uuid.clone(),
            "driver_version" => self.driver.clone().unwrap_or_default(),
            "memory.total" => with(g.memory, "MiB"),
            "memory.used" => with(4, "MiB"),
            "memory.free" => with(g.memory - 600, "MiB"),
            "utilization.gpu" | "utilization.memory" => with(0, "%"),
            "temperature.gpu" => "34".into(),
            "power.draw" | "power.draw.average" | "power.draw.instant" => with_hundredths(36, "W"),
            "power.limit" | "power.default_limit" | "power.max_limit" | "enforced.power.limit" => {
                with_hundredths(250, "W")
            }
            "power.min_limit" => with_hundredths(150, "W"),
            "persistence_mode" | "ecc.mode.current" | "ecc.mode.pending" => yes(true),
            "display_active" | "display_mode" | "accounting.mode" => yes(false),
            "clocks.sm" | "clocks.gr" | "clocks.current.sm" | "clocks.current.graphics" => with(210, "MHz"),
            "clocks.mem" | "clocks.current.memory" | "clocks.max.mem" | "clocks.max.memory" => with(1215, "MHz"),
            "clocks.max.sm" | "clocks.max.gr" | "clocks.max.graphics" => with(1410, "MHz"),
            "temperature.memory" => "34".into(),
            "pci.domain" => "0x0000".into(),
            "pcie.link.gen.current" | "pcie.link.gen.max" => "4".into(),
            "pcie.link.width.current" | "pcie.link.width.max" => "16".into(),
            "memory.reserved" => with(596, "MiB"),
            "pci.bus_id" | "gpu_bus_id" => format!("00000000:{}", g.bus),
            "pstate" => "P0".into(),
            "mig.mode.current" => yes(g.state.mig),
            "mig.mode.pending" => yes(g.state.mig_next),
            "compute_mode" => if g.state.exclusive { "Exclusive_Process" } else { "Default" }.into(),
            "compute_cap" => "8.0".into(),
            "ecc.errors.uncorrected.volatile.total" => "0".into(),
            _ => "[N/A]".into(),
        };
        let head = if format.contains("noheader") { String::new() } else { format!("{}\n", headed(&keys)) };
        let row = |(i, g): &(usize, &Gpu)| {
            format!("{}\n", keys.iter().map(|k| field(*i, g, k)).collect::<Vec<_>>().join(", "))
        };
        std::iter::once(head).chain(chosen.iter().map(row)).collect()
    }

    fn table(&self, chosen: &[(usize, &Gpu)]) -> String {
        let driver = self.driver.as_deref().unwrap_or_default();
        let mut out =
            format!("{EDGE}\n| NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: {CUDA:<8} |\n{HEAD}\n");
        for (i, g) in chosen {
            let mode = if g.state.exclusive { "E. Process" } else { "Default" };
            let mig = if g.state.mig { "Enabled" } else { "Disabled" };
            out += &format!("|{i:>4}  {:<31}On  |   00000000:{} Off |                    0 |\n", g.name, g.bus);
            let used = format!("4MiB / {:>6}MiB", g.memory);
            out += &format!("| N/A   34C    P0             36W /  250W |{used:>23} |      0%{mode:>13} |\n");
            out += &format!("|{:41}|{:24}|{mig:>21} |\n{RULE}\n", "", "");
        }
        out + PROCESSES + "\n"
    }

    /// How the cards are joined: each has a port of its own at the host bridge of its machine.
    fn matrix(&self) -> String {
        let n = self.gpus.len();
        let names: Vec<String> = (0..n).map(|i| format!("GPU{i}")).collect();
        let mut out = format!("\t{}\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n", names.join("\t"));
        for (i, name) in names.iter().enumerate() {
            let ways: Vec<&str> = (0..n).map(|k| if k == i { " X " } else { "PHB" }).collect();
            out += &format!("{name}\t{}\t\tN/A\t\tN/A\n", ways.join("\t"));
        }
        out + LEGEND
    }
}

/// Fields by the words that `--query-gpu` has for them: those with a unit, and the others. Grade: docs.
const MEASURED: &[(&str, &str)] = &[
    ("memory.", " [MiB]"),
    ("utilization.", " [%]"),
    ("fan.speed", " [%]"),
    ("power.", " [W]"),
    ("enforced.power.limit", " [W]"),
    ("clocks.", " [MHz]"),
];
const COUNTED: &[&str] = &[
    "index",
    "count",
    "name",
    "gpu_name",
    "uuid",
    "gpu_uuid",
    "serial",
    "gpu_serial",
    "driver_version",
    "vbios_version",
    "timestamp",
    "pstate",
    "persistence_mode",
    "display_active",
    "display_mode",
    "accounting.mode",
    "compute_mode",
    "compute_cap",
    "mig.mode.",
    "ecc.",
    "pci.",
    "gpu_bus_id",
    "pcie.link.",
    "temperature.",
    "inforom.",
    "gom.",
    "encoder.stats.",
    "retired_pages.",
    "driver_model.",
    "addressing_mode",
    "gsp.mode.",
    "protected_memory.",
];

/// The first of the words that names no field, as the program says it.
fn unknown_field(q: &str) -> Option<String> {
    let is = |k: &str, known: &str| k == known || known.ends_with('.') && k.starts_with(known);
    let known = |k: &str| MEASURED.iter().any(|(f, _)| is(k, f)) || COUNTED.iter().any(|f| is(k, f));
    let odd = q.split(',').map(str::trim).find(|k| !known(k))?;
    Some(format!("Field \"{odd}\" is not a valid field to query.\n\n"))
}

/// The heads of a query's columns; measured ones have their unit.
fn headed(keys: &[&str]) -> String {
    let unit = |k: &str| MEASURED.iter().find(|(f, _)| k.starts_with(f)).map_or("", |(_, u)| u);
    let long = |k: &str| match k {
        "clocks.sm" => "clocks.current.sm".to_owned(),
        "clocks.gr" => "clocks.current.graphics".to_owned(),
        "clocks.mem" => "clocks.current.memory".to_owned(),
        k => k.to_owned(),
    };
    keys.iter().map(|k| long(k) + unit(k)).collect::<Vec<_>>().join(", ")
}

/// Nothing computes on the cards by itself.
fn computing(q: &str, format: &str) -> String {
    let keys: Vec<String> = q.split(',').map(|k| k.trim().replace("used_memory", "used_gpu_memory [MiB]")).collect();
    if format.contains("noheader") { String::new() } else { format!("{}\n", keys.join(", ")) }
}

/// So many looks at the chosen cards below their head.
fn rows(head: &str, count: usize, chosen: &[(usize, &Gpu)], row: impl Fn(usize) -> String) -> String {
    let mut out = format!("{head}\n");
    for _ in 0..count.min(1000) {
        chosen.iter().for_each(|(i, _)| out += &format!("{}\n", row(*i)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Smi {
        let gpu = |bus: &str| Gpu {
            name: "NVIDIA A100-PCIE-40GB".into(),
            memory: 40_960,
            bus: bus.into(),
            uuid: format!("GPU-{bus}"),
            state: Card::default(),
        };
        Smi { driver: Some("580.105.08".into()), gpus: vec![gpu("01:00.0"), gpu("02:00.0")] }
    }

    fn said(words: &str) -> Option<String> {
        two().say(&words.split_whitespace().collect::<Vec<_>>()).map(|s| s.1)
    }

    #[test]
    fn words_ask_for_a_list_a_query_a_matrix_or_looks() {
        assert!(said("").unwrap().starts_with("+---"));
        assert_eq!(said("-L").unwrap().lines().count(), 2);
        assert_eq!(
            said("--query-gpu=index,name --format=csv -i 1").unwrap(),
            "index, name\n1, NVIDIA A100-PCIE-40GB\n"
        );
        let all = said("--query-gpu=memory.total,power.draw,clocks.sm,ecc.mode.current --format=csv -i 0").unwrap();
        assert_eq!(
            all,
            "memory.total [MiB], power.draw [W], clocks.current.sm [MHz], ecc.mode.current\n40960 MiB, 36.00 W, 210 MHz, Enabled\n"
        );
        assert_eq!(
            said("--query-gpu=name,foo --format=csv").unwrap(),
            "Field \"foo\" is not a valid field to query.\n\n"
        );
        assert_eq!(said("--query-compute-apps=pid,used_memory --format=csv").unwrap(), "pid, used_gpu_memory [MiB]\n");
        assert!(said("topo -m").unwrap().contains("GPU0\t X \tPHB\t"));
        assert_eq!(said("dmon -c 2").unwrap().lines().count(), 6);
        assert_eq!(said("pmon -c 1").unwrap().lines().count(), 4);
        assert_eq!((said("dmon"), said("-q"), said("nvlink -s")), (None, None, None));
        assert_eq!(Smi { driver: None, ..two() }.say(&[]).unwrap().0, 9);
    }
}
