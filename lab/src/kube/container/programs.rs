//! Programs in containers that need more than files: waiting, time, the network, the pod's cards.
use std::time::Duration;

use bashkit::{Command, CommandContext, CommandStatus, async_trait};
use serde_json::Value;

use super::{Inside, memory};
use crate::guest::programs::{NOT_SIMULATED, duration, show_date};
use crate::guest::shell::{Job, run_to_end};
use crate::kube::text::arr;

/// Names of these programs.
pub(super) const NAMES: &[&str] = &[
    "sleep",
    "date",
    "hostname",
    "ps",
    "wget",
    "curl",
    "nslookup",
    "uname",
    "whoami",
    "id",
    "stty",
    "tty",
    "chroot",
    "stress",
    "stress-ng",
];

/// One of these programs in one container.
pub(super) struct Tool(pub Inside, pub &'static str);

pub(super) struct Said {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Said {
    pub fn out(text: impl Into<Vec<u8>>) -> Said {
        Said { code: 0, out: text.into(), err: String::new() }
    }
    pub fn err(code: i32, text: impl Into<String>) -> Said {
        Said { code, out: Vec::new(), err: text.into() }
    }
}

#[async_trait]
impl Command for Tool {
    async fn execute(&self, ctx: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        let args: Vec<&str> = ctx.args.iter().map(String::as_str).collect();
        let said = match self.1 {
            "sleep" => self.sleep(&args).await,
            "date" => self.date(&args),
            "hostname" => Said::out(format!("{}\n", self.0.env.get("HOSTNAME").cloned().unwrap_or_default())),
            "ps" => self.ps(),
            memory::TOO_MUCH => {
                self.0.too_much().await;
                Said::out("")
            }
            "stress" | "stress-ng" => {
                let load = memory::load(&[&[self.1], args.as_slice()].concat()).unwrap_or_default();
                let told = format!(
                    "{}: info: [1] dispatching hogs: {} cpu, 0 io, {} vm, 0 hdd\n",
                    self.1, load.cores, load.holders
                );
                ctx.stdout.write_all(told.as_bytes()).await?;
                self.stress(&load).await
            }
            "nslookup" => self.nslookup(&args),
            super::shell::SMI | super::files::TOOL => self.smi(&args),
            "uname" => Said::out(if args.contains(&"-a") {
                format!("Linux {} {} #1 SMP x86_64 GNU/Linux\n", self.host(), crate::guest::hw::KERNEL)
            } else if args.contains(&"-r") {
                format!("{}\n", crate::guest::hw::KERNEL)
            } else if args.contains(&"-m") {
                "x86_64\n".to_owned()
            } else {
                "Linux\n".to_owned()
            }),
            "stty" => self.stty(&args),
            "tty" => match self.0.screen.size() {
                Some(_) => Said::out("/dev/pts/0\n"),
                None => Said { code: 1, out: "not a tty\n".into(), err: String::new() },
            },
            "chroot" => self.chroot(ctx.args).await,
            "whoami" | "id" => self.who(&args),
            _ => self.fetch(&args).await,
        };
        if !said.out.is_empty() {
            ctx.stdout.write_all(&said.out).await?;
        }
        if !said.err.is_empty() {
            ctx.stderr.write_all(said.err.as_bytes()).await?;
        }
        Ok(CommandStatus::with_code(said.code))
    }
}

impl Tool {
    fn host(&self) -> String {
        self.0.env.get("HOSTNAME").cloned().unwrap_or_default()
    }

    /// The driver's tool, for the cards of this container.
    fn smi(&self, args: &[&str]) -> Said {
        let Some(g) = &self.0.gpus else { return Said::err(127, "sh: nvidia-smi: not found\n") };
        let smi = self.0.lab.with(|w| crate::smi::Smi::of(w, g.vmid, Some(&g.cards)));
        match smi.say(args) {
            Some((code, text)) => Said { code, out: text.into_bytes(), err: String::new() },
            None => Said::err(NOT_SIMULATED, format!("lab: nvidia-smi {}: not simulated\n", args.join(" "))),
        }
    }

    /// The terminal's settings, as far as its size goes.
    fn stty(&self, args: &[&str]) -> Said {
        let Some((rows, columns)) = self.0.screen.size() else {
            return Said::err(1, "stty: standard input: Inappropriate ioctl for device\n");
        };
        match args {
            ["size"] => Said::out(format!("{rows} {columns}\n")),
            [] => Said::out("speed 38400 baud; line = 0;\n-brkint -imaxbel\n"),
            _ => Said::out(""),
        }
    }

    /// Whom the container runs as.
    fn who(&self, args: &[&str]) -> Said {
        let c = super::spec(&self.0.pod, &self.0.container).cloned().unwrap_or_default();
        let (own, all) = (&c["securityContext"], &self.0.pod["spec"]["securityContext"]);
        let number = |k: &str| own[k].as_u64().or(all[k].as_u64()).unwrap_or(0);
        let (user, group) = (number("runAsUser"), number("runAsGroup"));
        if self.1 == "whoami" {
            return match user {
                0 => Said::out("root\n"),
                n => Said::err(1, format!("whoami: unknown uid {n}\n")),
            };
        }
        let mut groups = vec![group];
        groups.extend(all["fsGroup"].as_u64());
        groups.extend(arr(all, "/supplementalGroups").iter().filter_map(Value::as_u64));
        let named = |n: &u64| if *n == 0 { "0(root)".to_owned() } else { n.to_string() };
        let list = |sep: &str, f: &dyn Fn(&u64) -> String| groups.iter().map(f).collect::<Vec<_>>().join(sep);
        Said::out(match args {
            ["-u"] => format!("{user}\n"),
            ["-g"] => format!("{group}\n"),
            ["-G"] => format!("{}\n", list(" ", &u64::to_string)),
            _ => format!("uid={} gid={} groups={}\n", named(&user), named(&group), list(",", &named)),
        })
    }

    /// A command on the node itself, whose root is mounted here.
    async fn chroot(&self, args: &[String]) -> Said {
        let [dir, rest @ ..] = args else { return Said::err(1, "chroot: missing operand\n") };
        let Some(m) = self.0.machine(dir) else {
            return Said::err(1, format!("chroot: can't execute '/bin/sh': No such file or directory ({dir})\n"));
        };
        let (text, args) = super::shell::script(rest);
        let job = Job { args, cwd: Some("/".to_owned()), ..Job::root(&text) };
        let end = run_to_end(m, job).await;
        Said { code: end.code, out: end.out, err: String::from_utf8_lossy(&end.err).into_owned() }
    }

    async fn sleep(&self, args: &[&str]) -> Said {
        let mut ms = 0;
        for a in args {
            match duration(a) {
                _ if matches!(*a, "infinity" | "inf") => ms = u64::MAX / 4,
                Some(d) => ms += d,
                None => return Said::err(1, format!("sleep: invalid number '{a}'\n")),
            }
        }
        if args.is_empty() {
            return Said::err(1, "sleep: missing operand\n");
        }
        self.0.lab.clock().sleep(Duration::from_millis(ms)).await;
        Said::out("")
    }

    fn date(&self, args: &[&str]) -> Said {
        let now = self.0.lab.clock().now_ms();
        let format = args.iter().find_map(|a| a.strip_prefix('+')).unwrap_or("%a %b %e %H:%M:%S UTC %Y");
        Said::out(format!("{}\n", show_date(format, now / 1000, now % 1000 * 1_000_000)))
    }

    /// A load that holds memory and keeps cores busy, as long as it is let.
    async fn stress(&self, load: &memory::Load) -> Said {
        if load.bytes > self.0.memory() {
            self.0.too_much().await;
        }
        let ms = load.ms.unwrap_or(u64::MAX / 4);
        self.0.lab.clock().sleep(Duration::from_millis(ms)).await;
        Said::out(format!("{}: info: [1] successful run completed in {}s\n", self.1, ms / 1000))
    }

    fn ps(&self) -> Said {
        let c = super::spec(&self.0.pod, &self.0.container).cloned().unwrap_or_default();
        let words: Vec<String> = super::words(&c).into_iter().map(|w| super::env::expand(w, &self.0.env)).collect();
        let main = if words.is_empty() {
            self.0.image.rsplit('/').next().unwrap_or("app").to_owned()
        } else {
            words.join(" ")
        };
        Said::out(format!("PID   USER     TIME  COMMAND\n    1 root      0:00 {main}\n    7 root      0:00 ps\n"))
    }
}
