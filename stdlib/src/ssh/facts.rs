//! What a host is: system, hardware, packages, services, in one round trip, kept until an op changes the host.
use rhai::{Array, Dynamic, Map};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::core::units::{Duration, Size};

use super::host::Host;

/// A tool that is absent leaves its section empty. Nothing here may wait for a server that is gone: `df` is local.
const PROGRAM: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; export PATH LC_ALL\n\
    s() { echo; echo \"@@$1\"; shift; \"$@\" 2>/dev/null; }\n\
    command -v getent >/dev/null 2>&1 || getent() { cat \"/etc/$1\"; }\n\
    s os cat /etc/os-release\n\
    s kernel uname -r\ns arch uname -m\ns hostname cat /proc/sys/kernel/hostname\n\
    s cores nproc\ns cpu cat /proc/cpuinfo\ns memory cat /proc/meminfo\n\
    s uptime cat /proc/uptime\ns boot cat /proc/sys/kernel/random/boot_id\n\
    s disks lsblk -b -n -P -o NAME,TYPE,SIZE,SERIAL,FSTYPE,LABEL,MOUNTPOINT\n\
    s mounts cat /proc/mounts\ns space df -Plk\ns swap cat /proc/swaps\n\
    s links ip -o link show\ns addresses ip -o addr show\n\
    if command -v dpkg-query >/dev/null 2>&1; then\n\
    s packages dpkg-query -W '-f=${db:Status-Status} ${Package} ${Version}\\n'\n\
    else s packages rpm -qa --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\\n'; fi\n\
    s services systemctl list-units --type=service --state=running --no-legend --plain\n\
    s failed systemctl list-units --state=failed --no-legend --plain\n\
    s modules cat /proc/modules\ns sysctl sysctl -a\n\
    s pci lspci -Dnn\ns users getent passwd\ns zone readlink /etc/localtime\n\
    s time timedatectl show\ns virtual systemd-detect-virt\necho; echo @@end\n";

/// What an earlier call of this run found, and for which login.
struct Known {
    login: String,
    facts: Map,
}

impl Host {
    /// System, hardware, disks, network, packages and services as a map. A second call of the same run costs no
    /// round trip unless an op changed this host in between.
    ///
    /// # Errors
    /// `unreachable`, `denied`; `failed` when the shell broke off.
    pub async fn facts(&self, ctx: &Ctx) -> OpResult<Map> {
        let op = Op::read("ssh", "facts", self.name());
        let key = Op::knowledge_of(self.name());
        let login = format!("{}@{}:{}", self.user(), self.address(), self.port());
        ctx.run_op(op, |s| async move {
            if let Some(known) = s.ctx().cached::<Known>(&key).filter(|k| k.login == login) {
                return Ok(known.facts.clone());
            }
            let out = self.look_raw(s.ctx(), PROGRAM).await?;
            if !out.stdout.ends_with("\n@@end\n") {
                let mut e = OpError::failed("the program that reads the facts did not finish");
                e.causes = out.last_words();
                return Err(e);
            }
            let facts = parse(&out.stdout);
            s.ctx().keep(key, std::sync::Arc::new(Known { login, facts: facts.clone() }));
            Ok(facts)
        })
        .await
    }
}

fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let head = format!("\n@@{name}\n");
    let Some(at) = text.find(&head) else { return "" };
    let rest = &text[at + head.len()..];
    match rest.find("\n@@") {
        // The program's own empty line before the next mark.
        Some(end) => &rest[..end],
        None => rest,
    }
}

fn map<const N: usize>(list: [(&str, Dynamic); N]) -> Dynamic {
    list.into_iter().map(|(k, v)| (k.into(), v)).collect::<Map>().into()
}

fn word(line: &str, n: usize) -> &str {
    line.split_whitespace().nth(n).unwrap_or_default()
}

/// `KEY="value"` of os-release, or `KEY=value` of timedatectl.
fn setting(text: &str, key: &str) -> String {
    let found = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_default().trim_matches('"').to_owned()
}

/// `()` for what the host does not tell: unknown is not nothing.
fn known<T: rhai::Variant + Clone>(value: Option<T>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Dynamic::from)
}

fn kib(text: &str, key: &str) -> Dynamic {
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
    // Whole mebibytes print well, and nobody declares less.
    known(word(line, 1).parse::<u64>().ok().map(|n| Size::mib(n / 1024)))
}

fn parse(text: &str) -> Map {
    let get = |name: &str| section(text, name);
    let line = |name: &str| Dynamic::from(get(name).trim().to_owned());
    let (os, memory, time) = (get("os"), get("memory"), get("time"));
    let cpu = get("cpu").lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    let uptime = word(get("uptime"), 0).parse::<f64>().ok().filter(|s| *s >= 0.0);
    let mut m = Map::new();
    let mut put = |k: &str, v: Dynamic| m.insert(k.into(), v);
    put(
        "os",
        map([
            ("id", setting(os, "ID").into()),
            ("version", setting(os, "VERSION_ID").into()),
            ("name", setting(os, "PRETTY_NAME").into()),
        ]),
    );
    put("kernel", line("kernel"));
    put("arch", line("arch"));
    put("hostname", line("hostname"));
    put("virtualization", line("virtual"));
    put("boot_id", line("boot"));
    put("uptime", known(uptime.map(|s| Duration(std::time::Duration::from_secs_f64(s)))));
    put("cores", known(get("cores").trim().parse::<i64>().ok()));
    put("cpu", cpu.map_or(String::new(), |(_, v)| v.trim().to_owned()).into());
    put("memory", kib(memory, "MemTotal:"));
    put("memory_available", kib(memory, "MemAvailable:"));
    put("swap", get("swap").lines().filter(|l| l.starts_with('/')).map(swap).collect::<Array>().into());
    put("disks", get("disks").lines().map(disk).collect::<Array>().into());
    put(
        "mounts",
        get("mounts")
            .lines()
            .filter(|l| l.starts_with('/') || word(l, 2).starts_with("nfs"))
            .map(|l| mount(l, get("space")))
            .collect::<Array>()
            .into(),
    );
    put("nics", nics(get("links"), get("addresses")).into());
    put("packages", packages(get("packages")).into());
    put("services", list(get("services"), |l| word(l, 0).trim_end_matches(".service").to_owned().into()));
    put("failed", list(get("failed"), |l| word(l, 0).to_owned().into()));
    put("modules", list(get("modules"), |l| word(l, 0).to_owned().into()));
    put("sysctl", get("sysctl").lines().filter_map(pair).collect::<Map>().into());
    put("pci", list(get("pci"), pci));
    put("users", get("users").lines().filter_map(user).collect::<Map>().into());
    let zone = get("zone").trim().split_once("zoneinfo/").map(|(_, z)| z.to_owned());
    put("timezone", zone.unwrap_or_else(|| setting(time, "Timezone")).into());
    put("time_synchronized", (setting(time, "NTPSynchronized") == "yes").into());
    m
}

fn list(text: &str, f: impl Fn(&str) -> Dynamic) -> Dynamic {
    text.lines().filter(|l| !l.trim().is_empty()).map(f).collect::<Array>().into()
}

/// `NAME="sda" TYPE="disk" …` of `lsblk -P`.
fn disk(line: &str) -> Dynamic {
    let get = |key: &str| {
        let at = line.find(&format!("{key}=\"")).map(|i| i + key.len() + 2);
        at.and_then(|i| line[i..].split('"').next()).unwrap_or_default().to_owned()
    };
    map([
        ("name", get("NAME").into()),
        ("kind", get("TYPE").into()),
        ("size", known(get("SIZE").parse().ok().map(Size))),
        ("serial", get("SERIAL").into()),
        ("fs", get("FSTYPE").into()),
        ("label", get(" LABEL").into()),
        ("mount", get("MOUNTPOINT").into()),
    ])
}

fn mount(line: &str, space: &str) -> Dynamic {
    let w = |n: usize| -> Dynamic { word(line, n).replace("\\040", " ").into() };
    // `df -P`: device, kibibytes, used, free, percent, path.
    let of = |l: &&str| l.split_once("% ").is_some_and(|(_, p)| p == word(line, 1).replace("\\040", " "));
    let row = space.lines().find(of).unwrap_or_default();
    let kib = |n: usize| known(word(row, n).parse::<u64>().ok().map(|k| Size(k * 1024)));
    map([
        ("device", w(0)),
        ("path", w(1)),
        ("fs", w(2)),
        ("options", w(3)),
        ("size", kib(1)),
        ("used", kib(2)),
        ("free", kib(3)),
    ])
}

/// `/swapfile file 1048572 0 -2` of /proc/swaps.
fn swap(line: &str) -> Dynamic {
    let kib = |n: usize| known(word(line, n).parse::<u64>().ok().map(|k| Size(k * 1024)));
    map([("path", word(line, 0).to_owned().into()), ("size", kib(2)), ("used", kib(3))])
}

/// `vm.swappiness = 60`.
fn pair(line: &str) -> Option<(rhai::Identifier, Dynamic)> {
    let (k, v) = line.split_once('=')?;
    Some((k.trim().into(), v.trim().to_owned().into()))
}

/// `ada:x:1000:1000:Ada:/home/ada:/bin/bash`.
fn user(line: &str) -> Option<(rhai::Identifier, Dynamic)> {
    let f: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = f.as_slice() else { return None };
    let number = |t: &str| Dynamic::from(t.parse::<i64>().unwrap_or(-1));
    let text = |t: &str| Dynamic::from(t.to_owned());
    Some((
        (*name).into(),
        map([("uid", number(uid)), ("gid", number(gid)), ("home", text(home)), ("shell", text(shell))]),
    ))
}

/// `2: eth0: <…> … link/ether bc:24:… ` and `2: eth0    inet 10.0.0.11/24 …`.
fn nics(links: &str, addresses: &str) -> Array {
    let name = |l: &str| word(l, 1).trim_end_matches(':').split('@').next().unwrap_or_default().to_owned();
    let mut out = Array::new();
    // Some versions fold the line although `-o` says not to.
    let links = links.replace("\n ", " ");
    for l in links.lines().filter(|l| name(l) != "lo") {
        let nic = name(l);
        let mac = l.split("link/ether ").nth(1).map(|r| word(r, 0)).unwrap_or_default();
        let of_nic = addresses.lines().filter(|a| name(a) == nic);
        let ips: Array = of_nic.map(|a| word(a, 3).split('/').next().unwrap_or_default().to_owned().into()).collect();
        out.push(map([("name", nic.into()), ("mac", mac.to_owned().into()), ("addresses", ips.into())]));
    }
    out
}

fn packages(text: &str) -> Map {
    let installed = text.lines().filter(|l| l.starts_with("installed "));
    installed.map(|l| (word(l, 1).into(), word(l, 2).to_owned().into())).collect()
}

/// `0000:01:00.0 3D controller [0302]: NVIDIA Corporation … [10de:20f1] (rev a1)`.
fn pci(line: &str) -> Dynamic {
    let (address, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (kind, name) = rest.split_once("]: ").unwrap_or((rest, ""));
    let id = name.rsplit('[').next().and_then(|r| r.split(']').next()).unwrap_or_default();
    map([
        ("address", address.to_owned().into()),
        ("kind", kind.split(" [").next().unwrap_or_default().to_owned().into()),
        ("id", id.to_owned().into()),
        ("name", name.split(" [").next().unwrap_or_default().to_owned().into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\n@@os\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n\n@@kernel\n6.1.0-25-cloud-amd64\n\n@@arch\nx86_64\n\n@@hostname\nn1\n\n@@cores\n16\n\n@@cpu\nmodel name\t: EPYC\n\n@@memory\nMemTotal:       16384 kB\nMemAvailable:   8192 kB\n\n@@uptime\n12.50 20.0\n\n@@boot\nabc\n\n@@disks\nNAME=\"sda\" TYPE=\"disk\" SIZE=\"1024\" SERIAL=\"gh-data-221\" FSTYPE=\"\" LABEL=\"x y\" MOUNTPOINT=\"\"\n\n@@mounts\n/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n\n@@space\nFilesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 40 60 40% /\n\n@@swap\nFilename Type Size Used Priority\n/swapfile file 2048 0 -2\n\n@@links\n1: lo: <LOOPBACK> link/loopback 00\n2: eth0: <UP> mtu 1500\n    link/ether bc:24:11:00:00:01 brd\n\n@@addresses\n2: eth0    inet 10.0.0.11/24 brd\n\n@@packages\ninstalled curl 7.88\nconfig-files x 1\n\n@@services\nssh.service loaded active running OpenBSD\n\n@@modules\nbr_netfilter 1 0 - Live 0\n\n@@sysctl\nvm.swappiness = 60\n\n@@pci\n0000:01:00.0 3D controller [0302]: NVIDIA Corporation GA100 [A100 PCIe 40GB] [10de:20f1] (rev a1)\n\n@@users\nroot:x:0:0::/root:/bin/bash\n\n@@zone\n/usr/share/zoneinfo/Etc/UTC\n\n@@time\nTimezone=Etc/UTC\nNTPSynchronized=yes\n\n@@virtual\nkvm\n\n@@end\n";

    #[test]
    fn a_sample_reads_into_types() {
        let m = parse(SAMPLE);
        let text = |k: &str| m[k].clone().into_string().unwrap();
        assert_eq!(
            (text("kernel").as_str(), text("hostname").as_str(), text("cpu").as_str()),
            ("6.1.0-25-cloud-amd64", "n1", "EPYC")
        );
        assert_eq!(m["memory"].clone().cast::<Size>(), Size(16384 * 1024));
        assert_eq!(m["cores"].as_int().unwrap(), 16);
        let first = |k: &str| m[k].clone().into_typed_array::<Map>().unwrap()[0].clone();
        assert_eq!(first("pci")["id"].to_string(), "10de:20f1");
        assert_eq!(first("pci")["kind"].to_string(), "3D controller");
        assert_eq!(first("disks")["serial"].to_string(), "gh-data-221");
        assert_eq!(first("disks")["label"].to_string(), "x y");
        assert_eq!(first("nics")["mac"].to_string(), "bc:24:11:00:00:01");
        assert_eq!(m["mounts"].clone().into_array().unwrap().len(), 1);
        assert_eq!(m["packages"].clone().cast::<Map>()["curl"].to_string(), "7.88");
        assert!(m["time_synchronized"].as_bool().unwrap());
        assert_eq!(first("mounts")["free"].clone().cast::<Size>(), Size(60 * 1024));
        assert_eq!(first("swap")["size"].clone().cast::<Size>(), Size(2048 * 1024));
        let of = |k: &str, n: &str| m[k].clone().cast::<Map>()[n].clone();
        assert_eq!(of("sysctl", "vm.swappiness").to_string(), "60");
        assert_eq!(of("users", "root").cast::<Map>()["uid"].as_int().unwrap(), 0);
        assert_eq!(text("timezone"), "Etc/UTC");
        assert_eq!(section("\n@@a\n\n@@b\nx\n", "a"), "");
    }

    #[test]
    fn what_a_host_does_not_tell_is_unknown_and_not_nothing() {
        let m = parse("\n@@mounts\n/dev/sda1 / ext4 rw 0 0\n\n@@end\n");
        assert!(m["memory"].is_unit() && m["cores"].is_unit() && m["uptime"].is_unit());
        let mount = m["mounts"].clone().into_typed_array::<Map>().unwrap()[0].clone();
        assert!(mount["free"].is_unit() && mount["path"].to_string() == "/");
    }
}
