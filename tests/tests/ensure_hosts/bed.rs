//! Hosts of their own on this machine: namespaces over the running system's files, each with a real sshd behind a
//! proxy that counts how often the client speaks.
use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Exit code of `host-up.sh` when this machine may not do what a host needs.
const CANNOT: i32 = 77;

/// One host.
pub struct Host {
    pub name: &'static str,
    /// Where its sshd is reached.
    pub address: String,
    pub port: u16,
    init: u32,
    unshare: Child,
    /// Times the client spoke after the server had.
    turns: Arc<AtomicUsize>,
}

/// Why there can be no hosts here, if so.
pub fn missing() -> Option<String> {
    let on_path = |p: &str| {
        let dirs = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        dirs.iter().any(|d| Path::new(d).join(p).exists())
    };
    let need = ["unshare", "nsenter", "sshd", "ssh-keygen", "ip", "mkfs.ext4", "sudo", "busybox", "dash", "dpkg-deb"];
    if let Some(p) = need.iter().find(|p| !on_path(p)) {
        return Some(format!("no `{p}` on this machine"));
    }
    let uid = Command::new("id").arg("-u").output().ok()?;
    if uid.stdout != b"0\n" {
        return Some("hosts of their own need root".to_owned());
    }
    let tried = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "sh", "-c"])
        .arg(
            "d=$(mktemp -d) && mount --make-rprivate / && mount -t tmpfs tmpfs $d && mkdir $d/u $d/w $d/r && \
             mount -t overlay overlay -o lowerdir=/,upperdir=$d/u,workdir=$d/w $d/r && [ -e $d/r/usr/bin ]; r=$?; \
             umount -l $d; rmdir $d; exit $r",
        )
        .output();
    match tried {
        Ok(o) if o.status.success() => None,
        Ok(o) => Some(format!("no namespaces or no overlay here: {}", String::from_utf8_lossy(&o.stderr).trim())),
        Err(e) => Some(e.to_string()),
    }
}

/// Why there can be no host with dnf, if so.
pub fn no_dnf() -> Option<String> {
    let there = |p: &&str| ["/usr/bin", "/usr/local/bin"].iter().any(|d| Path::new(d).join(p).exists());
    let missing: Vec<&str> = ["dnf", "rpm", "rpmbuild", "createrepo_c"].into_iter().filter(|p| !there(p)).collect();
    (!missing.is_empty()).then(|| format!("no {} on this machine", missing.join(", ")))
}

/// Makes a key pair.
pub fn keygen(path: &Path) {
    let done =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path).status();
    assert!(done.unwrap().success());
}

/// Waits for something that another process does.
fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(t) = look() {
            return t;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Host {
    /// Starts a host whose `/bin/sh` is `shell`, reached at loopback address `127.0.0.n`.
    pub fn start(dir: &Path, name: &'static str, shell: &str, n: u8) -> Host {
        let at = dir.join(name);
        fs::create_dir(&at).unwrap();
        keygen(&dir.join(format!("{name}.host")));
        fs::copy(dir.join("key.pub"), dir.join(format!("{name}.pub"))).unwrap();
        let script = gpuhost_tests::root().join("tests/tests/ensure_hosts/host-up.sh");
        let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child=KILL", "sh"])
            .arg(script)
            .arg(&at)
            .args([name, shell])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let id = unshare.id();
        let said = || fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
        let init = patiently("the host's first process", || {
            if let Some(s) = unshare.try_wait().unwrap() {
                assert_ne!(s.code(), Some(CANNOT), "{}", said());
                panic!("{name} did not start: {s}\n{}", said());
            }
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
            children.split_whitespace().next()?.parse::<u32>().ok()
        });
        patiently("the host's start", || {
            if let Some(s) = unshare.try_wait().unwrap() {
                panic!("{name} did not start: {s}\n{}", said());
            }
            Path::new(&format!("/proc/{init}/root/run/standins/ready")).exists().then_some(())
        });
        let address = format!("127.0.0.{n}");
        let listener = TcpListener::bind((address.as_str(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Arc::new(AtomicUsize::new(0));
        let counter = turns.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || serve(stream, init, &counter));
            }
        });
        Host { name, address, port, init, unshare, turns }
    }

    /// A path of the host as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A text file of the host.
    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// What a command of root prints there.
    pub fn run(&self, command: &str) -> String {
        let out = self.enter().args(["sh", "-c", command]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn enter(&self) -> Command {
        enter(self.init)
    }

    /// Commands that its sshd has run so far, by its own log.
    pub fn sessions(&self) -> usize {
        self.text("/var/log/sshd.log").matches("Starting session: command").count()
    }

    /// How often the client spoke so far.
    pub fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }

    /// The line of known_hosts.
    pub fn known(&self, dir: &Path) -> String {
        let public = fs::read_to_string(dir.join(format!("{}.host.pub", self.name))).unwrap();
        format!("[{}]:{} {}\n", self.address, self.port, public.trim())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The first process takes all others of its namespace with it.
        self.unshare.kill().ok();
        self.unshare.wait().ok();
    }
}

fn enter(init: u32) -> Command {
    let mut c = Command::new("nsenter");
    c.args(["-t", &init.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]);
    c
}

/// One connection: sshd in the host's namespaces on one end of a socket pair, the client on the other.
fn serve(client: TcpStream, init: u32, turns: &AtomicUsize) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd: OwnedFd = theirs.try_clone().unwrap().into();
    let child = enter(init)
        .args(["/usr/sbin/sshd", "-i", "-f", "/etc/ssh/gpuhost_sshd_config", "-E", "/var/log/sshd.log"])
        .stdin(Stdio::from(fd))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return };
    let server_spoke = AtomicBool::new(true);
    std::thread::scope(|s| {
        s.spawn(|| {
            let heard = || {
                if server_spoke.swap(false, Ordering::SeqCst) {
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            };
            pump(&client, &ours, heard);
        });
        pump(&ours, &client, || server_spoke.store(true, Ordering::SeqCst));
        client.shutdown(Shutdown::Both).ok();
    });
    child.wait().ok();
}

/// Copies until one side ends.
fn pump<R, W>(mut from: R, mut to: W, seen: impl Fn())
where
    R: std::io::Read,
    W: std::io::Write + Socket,
{
    let mut buffer = [0; 65536];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        seen();
    }
    to.end();
}

/// A socket whose writing side can end.
trait Socket {
    fn end(&self);
}
impl Socket for &TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).ok();
    }
}
impl Socket for &UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).ok();
    }
}
