//! Real `sshd` instances on loopback ports, each in mount and process namespaces of its own (root only): the users
//! below exist for it and nowhere else, and everything that it starts ends with it.
#![allow(clippy::zombie_processes)] // waited for where the server is dropped
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The server that Debian's `openssh-server` brings.
const SSHD: &str = "/usr/sbin/sshd";
/// Password of the users, for the login and for `sudo`.
pub const PASSWORD: &str = "open sesame";
const HASH: &str = "$6$gpuhost$Tk89iiXgUJYbMA/ycr09BK9PhVIVks7DNNW1mnGT21zsTmvHGqVidAcKQ8iGsdevLBMzEFRcO5I/73a2wnlVN.";
/// Users: name, uid, login shell, `sudo` rule.
const USERS: &[(&str, u32, &str, &str)] =
    &[("ada", 4001, "/bin/bash", "ALL"), ("bob", 4002, "/bin/sh", "NOPASSWD: ALL"), ("eve", 4003, "/bin/sh", "")];

/// A folder with keys, users and any number of servers.
pub struct Bed {
    dir: tempfile::TempDir,
}

/// One running server.
pub struct Server {
    /// Where it listens.
    pub at: SocketAddr,
    /// Its host keys, as lines `type base64`.
    pub host_keys: Vec<String>,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

impl Bed {
    /// A bed, or `None` (and a line that says why) where no server can run.
    #[must_use]
    #[allow(clippy::print_stderr)]
    pub fn open() -> Option<Bed> {
        let namespaces = Command::new("unshare").args(["-m", "-p", "--fork", "true"]).stderr(Stdio::null()).status();
        let lack = if !Path::new(SSHD).exists() {
            format!("there is no {SSHD} (Debian: openssh-server)")
        } else if !namespaces.is_ok_and(|s| s.success()) {
            "only root can make the servers' namespaces (`unshare -m -p`)".to_owned()
        } else {
            return Some(Self::furnish());
        };
        eprintln!("skipped: {lack}");
        None
    }

    fn furnish() -> Bed {
        let bed = Bed { dir: tempfile::tempdir().unwrap_or_else(|e| panic!("tempdir: {e}")) };
        // Users of the servers walk through it.
        fs::set_permissions(bed.dir.path(), fs::Permissions::from_mode(0o755)).unwrap_or_else(|e| panic!("{e}"));
        for d in ["etc", "keys", "home", "client/.ssh"] {
            fs::create_dir_all(bed.path(d)).unwrap_or_else(|e| panic!("{d}: {e}"));
        }
        let machine = |name: &str| fs::read_to_string(format!("/etc/{name}")).unwrap_or_default();
        let (mut passwd, mut group, mut shadow) = (machine("passwd"), machine("group"), machine("shadow"));
        // A root without the start files of the machine's own, which may take seconds.
        let home = bed.path("home/root");
        fs::create_dir_all(&home).unwrap_or_else(|e| panic!("{e}"));
        let others: Vec<&str> = passwd.lines().filter(|l| !l.starts_with("root:")).collect();
        passwd = format!("root:x:0:0:root:{}:/bin/bash\n{}\n", home.display(), others.join("\n"));
        let mut sudoers = "Defaults env_reset\nDefaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:\
                           /usr/bin:/sbin:/bin\"\nroot ALL=(ALL) ALL\n"
            .to_owned();
        for (name, uid, shell, rule) in USERS {
            let home = bed.path(&format!("home/{name}"));
            fs::create_dir_all(&home).unwrap_or_else(|e| panic!("{e}"));
            std::os::unix::fs::chown(&home, Some(*uid), Some(*uid)).unwrap_or_else(|e| panic!("chown: {e}"));
            passwd.push_str(&format!("{name}:x:{uid}:{uid}::{}:{shell}\n", home.display()));
            group.push_str(&format!("{name}:x:{uid}:\n"));
            shadow.push_str(&format!("{name}:{HASH}:20000:0:99999:7:::\n"));
            if !rule.is_empty() {
                sudoers.push_str(&format!("{name} ALL=(ALL) {rule}\n"));
            }
        }
        bed.write("etc/passwd", &passwd, 0o644);
        bed.write("etc/group", &group, 0o644);
        bed.write("etc/shadow", &shadow, 0o600);
        bed.write("etc/sudoers", &sudoers, 0o440);
        bed
    }

    /// A path in the bed.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The home of the client: what `~` is for the SSH files that it reads.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path("client")
    }

    /// Writes a file of the bed.
    pub fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        }
        fs::write(&path, text).unwrap_or_else(|e| panic!("{name}: {e}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// Makes a key pair with `ssh-keygen` and returns the public line.
    #[must_use]
    pub fn key(&self, name: &str, kind: &str, passphrase: &str) -> String {
        let path = self.path(name).display().to_string();
        run("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-C", name, "-f", &path]);
        fs::read_to_string(format!("{path}.pub")).unwrap_or_else(|e| panic!("{name}: {e}")).trim().to_owned()
    }

    /// Signs the key pair `name` by the authority `ca`: more arguments of `ssh-keygen`, for example `-n ada`.
    pub fn sign(&self, ca: &str, name: &str, more: &[&str]) {
        let (ca, public) = (self.path(ca).display().to_string(), format!("{}.pub", self.path(name).display()));
        let args = [&["-q", "-s", ca.as_str(), "-I", name], more, &[public.as_str()]].concat();
        run("ssh-keygen", &args);
    }

    /// Lets a public key log in as a user.
    pub fn authorize(&self, user: &str, public: &str) {
        let name = format!("keys/{user}");
        let old = fs::read_to_string(self.path(&name)).unwrap_or_default();
        self.write(&name, &format!("{old}{public}\n"), 0o644);
    }

    /// Starts a server with these host keys (names of key pairs of the bed) and more lines of configuration.
    #[must_use]
    pub fn start(&self, name: &str, host_keys: &[&str], more: &str) -> Server {
        // Between choosing a port and listening somebody else may take it.
        for _ in 0..20 {
            if let Some(server) = self.try_start(name, host_keys, more) {
                return server;
            }
        }
        panic!("no port for {name}");
    }

    fn try_start(&self, name: &str, host_keys: &[&str], more: &str) -> Option<Server> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
        let at = free.local_addr().unwrap_or_else(|e| panic!("{e}"));
        drop(free);
        let keys: String = host_keys.iter().map(|k| format!("HostKey {}\n", self.path(k).display())).collect();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {}\n{keys}AuthorizedKeysFile {}/%u\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin yes\nPasswordAuthentication yes\nMaxStartups 200\n\
             Subsystem sftp internal-sftp\nPrintMotd no\n{more}",
            at.port(),
            self.path("keys").display()
        );
        let file = format!("{name}.conf");
        self.write(&file, &config, 0o644);
        self.write("sshd.sh", include_str!("sshd.sh"), 0o644);
        let mut child = Command::new("unshare")
            .args(["-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh"])
            .arg(self.path("sshd.sh"))
            .arg(self.dir.path())
            .arg(self.path(&file))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("unshare: {e}"));
        let mut err = BufReader::new(child.stderr.take()?);
        let log = Arc::new(Mutex::new(String::new()));
        loop {
            let mut line = String::new();
            let n = err.read_line(&mut line).unwrap_or_default();
            if line.contains("Server listening on") {
                break;
            }
            let said = {
                let mut l = log.lock().unwrap_or_else(PoisonError::into_inner);
                l.push_str(&line);
                l.clone()
            };
            if n == 0 || line.contains("Cannot bind") {
                drop(child.stdin.take());
                child.wait().ok();
                assert!(said.contains("Cannot bind") || said.contains("Address already in use"), "{name}: {said}");
                return None;
            }
        }
        let more = log.clone();
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                more.lock().unwrap_or_else(PoisonError::into_inner).push_str(&format!("{line}\n"));
            }
        });
        let public = |k: &&str| fs::read_to_string(format!("{}.pub", self.path(k).display())).unwrap_or_default();
        let host_keys =
            host_keys.iter().map(public).map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
        Some(Server { at, host_keys, child, log })
    }
}

impl Server {
    /// Kills the processes that serve its connections; the listener stays.
    ///
    /// # Panics
    /// When there is no connection.
    pub fn cut(&self) {
        let sessions: Vec<String> = descendants(self.child.id())
            .into_iter()
            .filter(|p| {
                let line = fs::read(format!("/proc/{p}/cmdline")).unwrap_or_default();
                line.starts_with(b"sshd: ") && !line.starts_with(b"sshd: /")
            })
            .map(|p| p.to_string())
            .collect();
        assert!(!sessions.is_empty(), "no connection to cut");
        let args: Vec<&str> = ["-KILL"].into_iter().chain(sessions.iter().map(String::as_str)).collect();
        // One of them may be gone already with its parent.
        Command::new("kill").args(args).stderr(Stdio::null()).status().ok();
    }

    /// How often somebody logged in.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted ").count()
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    children.iter().flat_map(|c| std::iter::once(*c).chain(descendants(*c))).collect()
}
