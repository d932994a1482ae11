//! Programs in containers that need more than files: waiting, time, the network, the pod's cards.
use std::time::Duration;

use bashkit::{Command, CommandContext, CommandStatus, async_trait};
use serde_json::Value;

use super::Inside;
use crate::guest::programs::{NOT_SIMULATED, duration, show_date};
use crate::guest::shell::{Job, run_to_end};
use crate::kube::hooks::{self, ServiceAnswer, ServiceRequest};
use crate::kube::text::{arr, s};

/// Names of these programs.
pub(super) const NAMES: &[&str] =
    &["sleep", "date", "hostname", "ps", "wget", "curl", "nslookup", "uname", "whoami", "id", "stty", "tty", "chroot"];

/// One of these programs in one container.
pub(super) struct Tool(pub Inside, pub &'static str);

struct Said {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Said {
    fn out(text: impl Into<Vec<u8>>) -> Said {
        Said { code: 0, out: text.into(), err: String::new() }
    }
    fn err(code: i32, text: impl Into<String>) -> Said {
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
            "whoami" => Said::out("root\n"),
            "id" => Said::out(if args.contains(&"-u") { "0\n" } else { "uid=0(root) gid=0(root) groups=0(root)\n" }),
            _ => self.fetch(&args),
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

    fn ps(&self) -> Said {
        let c = super::spec(&self.0.pod, &self.0.container).cloned().unwrap_or_default();
        let words: Vec<&str> = arr(&c, "/command").iter().chain(arr(&c, "/args")).filter_map(Value::as_str).collect();
        let main = if words.is_empty() {
            self.0.image.rsplit('/').next().unwrap_or("app").to_owned()
        } else {
            words.join(" ")
        };
        Said::out(format!("PID   USER     TIME  COMMAND\n    1 root      0:00 {main}\n    7 root      0:00 ps\n"))
    }

    /// Service that a host name or address means: namespace and name.
    fn service(&self, host: &str) -> Option<(String, String, String)> {
        let own = s(&self.0.pod, "/metadata/namespace").to_owned();
        let mut parts = host.split('.');
        let (name, ns) = (parts.next()?.to_owned(), parts.next().map_or(own, str::to_owned));
        self.0.lab.with(|w| {
            let store = &w.clusters.get(&self.0.cluster)?.store;
            if let Some(o) = store.get("services", &ns, &name) {
                return Some((ns, name, s(o, "/spec/clusterIP").to_owned()));
            }
            let by_ip = store.all("services", "").find(|o| s(o, "/spec/clusterIP") == host)?;
            Some((s(by_ip, "/metadata/namespace").into(), s(by_ip, "/metadata/name").into(), host.to_owned()))
        })
    }

    fn nslookup(&self, args: &[&str]) -> Said {
        let name = args.iter().find(|a| !a.starts_with('-')).copied().unwrap_or_default();
        let head = "Server:\t\t10.43.0.10\nAddress:\t10.43.0.10:53\n\n";
        match self.service(name) {
            Some((ns, service, ip)) => {
                Said::out(format!("{head}Name:\t{service}.{ns}.svc.cluster.local\nAddress: {ip}\n\n"))
            }
            None => Said { code: 1, out: head.into(), err: format!("** server can't find {name}: NXDOMAIN\n\n") },
        }
    }

    /// `wget` and `curl` inside the cluster.
    fn fetch(&self, args: &[&str]) -> Said {
        let url =
            args.iter().rev().find(|a| !a.starts_with('-') && (a.contains('.') || a.contains(':') || a.len() > 1));
        let Some(url) = url else { return Said::err(1, format!("{}: no URL given\n", self.1)) };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (at, path) = rest.find('/').map_or((rest, "/"), |i| rest.split_at(i));
        let (host, port) = at.split_once(':').unwrap_or((at, if scheme == "https" { "443" } else { "80" }));
        let curl = self.1 == "curl";
        let Some(answer) = self.answer(scheme, host, port, path) else {
            return if curl {
                Said::err(6, format!("curl: (6) Could not resolve host: {host}\n"))
            } else {
                Said::err(1, format!("wget: bad address '{host}'\n"))
            };
        };
        match (answer, curl) {
            (Err(()), true) => Said::err(
                7,
                format!("curl: (7) Failed to connect to {host} port {port} after 1 ms: Could not connect to server\n"),
            ),
            (Err(()), false) => {
                Said::err(1, format!("wget: can't connect to remote host ({host}): Connection refused\n"))
            }
            (Ok(a), true)
                if args.iter().any(|f| f.starts_with("-f") || *f == "-sf" || *f == "-sSf") && a.status >= 400 =>
            {
                Said::err(22, format!("curl: (22) The requested URL returned error: {}\n", a.status))
            }
            (Ok(a), true) if args.contains(&"%{http_code}") => Said::out(a.status.to_string()),
            (Ok(a), false) if a.status >= 400 => {
                Said::err(1, format!("wget: server returned error: HTTP/1.1 {}\n", a.status))
            }
            (Ok(a), _) => Said::out(a.body),
        }
    }

    fn answer(&self, scheme: &str, host: &str, port: &str, path: &str) -> Option<Result<ServiceAnswer, ()>> {
        let (ns, name) = match self.service(host) {
            Some((ns, name, _)) => (ns, name),
            None => return self.pod_answer(host, port, path),
        };
        let req = ServiceRequest {
            namespace: ns,
            service: name,
            port: port.to_owned(),
            scheme: scheme.to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            ..ServiceRequest::default()
        };
        let a = self.0.lab.with(|w| hooks::service_http(&self.0.lab, w, &self.0.cluster, &req));
        Some(if a.status == 503 { Err(()) } else { Ok(a) })
    }

    /// A request to the address of a pod, or to this one.
    fn pod_answer(&self, host: &str, port: &str, path: &str) -> Option<Result<ServiceAnswer, ()>> {
        let own = matches!(host, "localhost" | "127.0.0.1");
        let ip = if own { s(&self.0.pod, "/status/podIP").to_owned() } else { host.to_owned() };
        self.0.lab.with(|w| {
            let c = w.clusters.get(&self.0.cluster)?;
            let pod = c.store.all("pods", "").find(|p| s(p, "/status/podIP") == ip)?.clone();
            Some(hooks::pod_http(&self.0.lab, w, &self.0.cluster, &pod, port.parse().unwrap_or(80), path).ok_or(()))
        })
    }
}
