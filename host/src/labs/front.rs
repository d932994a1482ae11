//! Fixed ports in front of the lab's servers: reserved from the start, refusing until somebody listens behind.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_lab::RouteSink;
use gpuhost_stdlib::core::dialer::Routes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::control::server::RouteNews;

struct Door {
    at: SocketAddr,
    /// Bound and never listening: whatever comes and goes on the port, no other program is given it.
    _anchor: TcpSocket,
    /// Who listens, and the task that carries.
    open: Option<(Arc<TcpListener>, JoinHandle<()>)>,
}

/// The doors of a served lab. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    rt: tokio::runtime::Handle,
    doors: Arc<Mutex<BTreeMap<String, Door>>>,
    /// Where the lab's servers really are.
    inner: Routes,
    news: broadcast::Sender<RouteNews>,
    changes: Arc<watch::Sender<u64>>,
}

fn reserve(port: u16) -> std::io::Result<TcpSocket> {
    let s = TcpSocket::new_v4()?;
    s.set_reuseaddr(true)?;
    s.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(s)
}

/// Carries bytes between a client and the server behind the door.
async fn carry(mut client: TcpStream, to: SocketAddr) {
    client.set_nodelay(true).ok();
    if let Ok(mut server) = TcpStream::connect(to).await {
        server.set_nodelay(true).ok();
        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
    }
}

async fn serve(listener: Arc<TcpListener>, to: SocketAddr) {
    let mut carried = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            a = listener.accept() => match a {
                Ok((c, _)) => { carried.spawn(carry(c, to)); }
                Err(_) => return,
            },
            Some(_) = carried.join_next() => {}
        }
    }
}

impl Front {
    /// Doors for `addrs` (`10.0.0.11:22`).
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn new(rt: &tokio::runtime::Handle, addrs: &[String]) -> std::io::Result<Self> {
        let (news, _) = broadcast::channel(1024);
        let me = Front {
            rt: rt.clone(),
            doors: Arc::default(),
            inner: Routes::default(),
            news,
            changes: Arc::new(watch::channel(0).0),
        };
        let _in = rt.enter();
        let mut doors = me.lock();
        for a in addrs {
            doors.insert(a.clone(), Door::closed()?);
        }
        drop(doors);
        Ok(me)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The door of `addr`.
    #[must_use]
    pub fn door(&self, addr: &str) -> Option<SocketAddr> {
        self.lock().get(addr).map(|d| d.at)
    }

    /// All doors.
    #[must_use]
    pub fn doors(&self) -> BTreeMap<String, SocketAddr> {
        self.lock().iter().map(|(a, d)| (a.clone(), d.at)).collect()
    }

    /// Where the servers really are, for those who may know (they go away with their guests).
    #[must_use]
    pub fn inner(&self) -> &Routes {
        &self.inner
    }

    /// Changes of the inner routes.
    #[must_use]
    pub fn news(&self) -> broadcast::Sender<RouteNews> {
        self.news.clone()
    }

    /// Counts changes, for those who rewrite files.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Door {
    fn closed() -> std::io::Result<Door> {
        let anchor = reserve(0)?;
        Ok(Door { at: anchor.local_addr()?, _anchor: anchor, open: None })
    }

    /// From here on connections are refused: the task that listens ends later.
    fn shut(&mut self) {
        if let Some((listener, task)) = self.open.take() {
            socket2::SockRef::from(&*listener).shutdown(std::net::Shutdown::Both).ok();
            task.abort();
        }
    }

    fn open(&mut self, rt: &tokio::runtime::Handle, to: SocketAddr) -> std::io::Result<()> {
        self.shut();
        let listener = Arc::new(reserve(self.at.port())?.listen(128)?);
        self.open = Some((listener.clone(), rt.spawn(serve(listener, to))));
        Ok(())
    }
}

impl RouteSink for Front {
    fn up(&self, addr: &str, at: SocketAddr) {
        let _in = self.rt.enter();
        self.inner.set(addr, at);
        self.news.send(RouteNews::Up(addr.to_owned(), at)).ok();
        let mut doors = self.lock();
        if !doors.contains_key(addr) {
            match Door::closed() {
                Ok(d) => {
                    doors.insert(addr.to_owned(), d);
                }
                Err(e) => tracing::warn!("no port for {addr}: {e}"),
            }
        }
        if let Some(d) = doors.get_mut(addr)
            && let Err(e) = d.open(&self.rt, at)
        {
            tracing::warn!("cannot serve {addr} at {}: {e}", d.at);
        }
        drop(doors);
        self.changes.send_modify(|n| *n += 1);
    }

    fn down(&self, addr: &str) {
        let _in = self.rt.enter();
        self.inner.remove(addr);
        self.news.send(RouteNews::Down(addr.to_owned())).ok();
        if let Some(d) = self.lock().get_mut(addr) {
            d.shut();
        }
        self.changes.send_modify(|n| *n += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_door_refuses_until_somebody_is_behind_it() {
        let rt = tokio::runtime::Handle::current();
        let f = Front::new(&rt, &["10.0.0.11:22".to_owned()]).unwrap();
        let door = f.door("10.0.0.11:22").unwrap();
        assert!(TcpStream::connect(door).await.is_err());
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        f.up("10.0.0.11:22", server.local_addr().unwrap());
        let mut c = TcpStream::connect(door).await.unwrap();
        let (mut s, _) = server.accept().await.unwrap();
        s.write_all(b"hi").await.unwrap();
        let mut buf = [0; 2];
        c.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hi");
        assert_eq!(f.door("10.0.0.11:22"), Some(door));
        f.down("10.0.0.11:22");
        assert!(f.inner().get("10.0.0.11:22").is_none());
        f.up("10.0.0.11:22", server.local_addr().unwrap());
        assert_eq!(f.door("10.0.0.11:22"), Some(door));
    }

    /// A port that is free for a moment goes to another lab of the machine, whose guests then answer for ours.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_door_shuts_at_once_and_keeps_its_port() {
        let rt = tokio::runtime::Handle::current();
        let addr = "10.0.0.11:22";
        let f = Front::new(&rt, &[addr.to_owned()]).unwrap();
        let door = f.door(addr).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for turn in 0..200 {
            f.up(addr, server.local_addr().unwrap());
            assert!(std::net::TcpStream::connect(door).is_ok(), "turn {turn}: open");
            f.down(addr);
            assert!(std::net::TcpStream::connect(door).is_err(), "turn {turn}: shut");
        }
    }
}
