//! The client's side of the control connection: a clock that another process keeps.
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};

use gpuhost_stdlib::core::clock::RemoteClock;
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use tokio::sync::oneshot;

use super::server::Hello;

#[derive(Default)]
struct State {
    /// Waiting timers by id.
    timers: HashMap<u64, oneshot::Sender<()>>,
    /// Waiting questions for the time, in order.
    nows: VecDeque<oneshot::Sender<u64>>,
    /// Marks that this process holds.
    marks: i64,
    /// Confirmations that came, and that were asked for.
    confirmed: u64,
    asked: u64,
    /// The connection has ended.
    gone: bool,
}

struct Inner {
    out: Mutex<TcpStream>,
    state: Mutex<State>,
    changed: Condvar,
    last: AtomicU64,
    ids: AtomicU64,
}

/// A clock over a control connection.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

fn lost(addr: &str, e: &dyn std::fmt::Display) -> OpError {
    OpError::unreachable(format!("the lab at {addr} does not answer"))
        .because(e.to_string())
        .hint("is `gpuhost lab serve` still running?")
}

impl Drop for Inner {
    fn drop(&mut self) {
        let out = self.out.get_mut().unwrap_or_else(PoisonError::into_inner);
        out.shutdown(std::net::Shutdown::Both).ok();
    }
}

impl Shared {
    /// Connects to a served lab and keeps its routes in `routes`; `on_loss` is called when the lab goes away.
    ///
    /// # Errors
    /// `unreachable` when nobody serves there.
    pub fn connect(addr: &str, routes: Option<Routes>, on_loss: impl Fn() + Send + 'static) -> OpResult<(Self, Hello)> {
        let to: SocketAddr = addr.parse().map_err(|e| lost(addr, &e))?;
        if !to.ip().is_loopback() {
            return Err(
                OpError::invalid(format!("`{addr}` is not on this machine")).hint("a lab is served on 127.0.0.1 only")
            );
        }
        let stream = TcpStream::connect(to).map_err(|e| lost(addr, &e))?;
        stream.set_nodelay(true).ok();
        let read = stream.try_clone().map_err(|e| lost(addr, &e))?;
        let inner = Arc::new(Inner {
            out: Mutex::new(stream),
            state: Mutex::default(),
            changed: Condvar::new(),
            last: AtomicU64::new(0),
            ids: AtomicU64::new(0),
        });
        let (tx, rx) = mpsc::channel();
        let own = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("lab clock".to_owned())
            .spawn(move || {
                for line in BufReader::new(read).lines() {
                    let (Ok(line), Some(inner)) = (line, own.upgrade()) else { break };
                    inner.hear(&line, routes.as_ref(), &tx);
                }
                // Nobody is left to tell when the run itself is over.
                if let Some(inner) = own.upgrade() {
                    inner.end();
                    on_loss();
                }
            })
            .map_err(|e| lost(addr, &e))?;
        let me = Shared(inner);
        me.0.send("hello");
        let hello = rx.recv().map_err(|_| lost(addr, &"the connection ended"))?;
        me.0.state().nows.push_back(oneshot::channel().0);
        me.0.send("now");
        Ok((me, hello))
    }

    fn arm(&self, word: &'static str, due: u64) -> Timer {
        let id = self.0.ids.fetch_add(1, Ordering::SeqCst) + 1;
        let (tx, rx) = oneshot::channel();
        {
            let mut s = self.0.state();
            if !s.gone {
                s.timers.insert(id, tx);
            }
        }
        self.0.send(&format!("{word} {id} {due}"));
        Timer { clock: self.0.clone(), id, rx, fired: false, passive: word == "deadline" }
    }
}

impl Inner {
    fn send(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(format!("{line}\n").as_bytes()).ok();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: &str, routes: Option<&Routes>, hello: &mpsc::Sender<Hello>) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut state = self.state();
        match word {
            "hello" => {
                if let Ok(h) = serde_json::from_str(rest) {
                    hello.send(h).ok();
                }
            }
            "now" | "marked" => {
                let ms = rest.parse().unwrap_or(0);
                self.last.fetch_max(ms, Ordering::SeqCst);
                if word == "marked" {
                    state.confirmed += 1;
                } else if let Some(tx) = state.nows.pop_front() {
                    tx.send(ms).ok();
                }
            }
            "fired" => {
                let mut words = rest.split(' ').filter_map(|w| w.parse::<u64>().ok());
                let (id, ms) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
                self.last.fetch_max(ms, Ordering::SeqCst);
                if let Some(tx) = state.timers.remove(&id) {
                    tx.send(()).ok();
                }
            }
            "up" => {
                if let (Some(r), Some((addr, at))) = (routes, rest.split_once(' '))
                    && let Ok(at) = at.parse()
                {
                    r.set(addr, at);
                }
            }
            "down" => {
                if let Some(r) = routes {
                    r.remove(rest);
                }
            }
            _ => {}
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The lab is gone: nothing may wait for it any more.
    fn end(&self) {
        let mut state = self.state();
        state.gone = true;
        state.timers.clear();
        state.nows.clear();
        drop(state);
        self.changed.notify_all();
    }
}

/// A timer at the server. Dropping it takes it back there, after the caller's own work was dropped.
struct Timer {
    clock: Arc<Inner>,
    id: u64,
    rx: oneshot::Receiver<()>,
    fired: bool,
    passive: bool,
}

impl Future for Timer {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.rx).poll(cx) {
            Poll::Ready(_) => {
                self.fired = true;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.passive && self.fired {
            self.clock.send(&format!("ack {}", self.id));
        } else if !self.fired {
            self.clock.state().timers.remove(&self.id);
            self.clock.send(&format!("cancel {}", self.id));
        }
    }
}

impl RemoteClock for Shared {
    fn now_ms(&self) -> Pin<Box<dyn Future<Output = u64> + Send + '_>> {
        let (tx, rx) = oneshot::channel();
        // The question and its place in the queue belong together.
        let mut s = self.0.state();
        if !s.gone {
            s.nows.push_back(tx);
            self.0.send("now");
        }
        drop(s);
        Box::pin(async move { rx.await.unwrap_or_else(|_| self.last_ms()) })
    }

    fn last_ms(&self) -> u64 {
        self.0.last.load(Ordering::SeqCst)
    }

    fn sleep_until(&self, due_ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.arm("sleep", due_ms))
    }

    fn deadline(&self, due_ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.arm("deadline", due_ms))
    }

    fn mark(&self, delta: i64) {
        let mut s = self.0.state();
        let first = s.marks <= 0 && delta > 0;
        s.marks += delta;
        if delta > 0 {
            s.asked += 1;
        }
        let wanted = s.asked;
        self.0.send(&format!("mark {delta}"));
        // Without a mark of our own the lab may be ahead of us: wait until it holds time for us.
        while first && s.confirmed < wanted && !s.gone {
            s = self.0.changed.wait(s).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
