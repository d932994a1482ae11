//! The serving side of the control connection.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_stdlib::core::clock::{BusyGuard, Mode, VirtualClock};
use gpuhost_stdlib::core::dialer::Routes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

/// What a client learns at the beginning.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// UUID of the site that is served.
    pub site: String,
    /// Where keys and tokens of runs on this lab live.
    pub state_dir: std::path::PathBuf,
}

/// A change of the routes.
#[derive(Debug, Clone)]
pub enum RouteNews {
    /// Served now.
    Up(String, SocketAddr),
    /// No longer.
    Down(String),
}

/// How time flows while nobody shares the clock, and while somebody does.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// With foreign clients only.
    pub alone: Mode,
    /// While a gpuhost run is connected.
    pub shared: Mode,
}

/// The control endpoint of a lab.
#[derive(Clone)]
pub struct Control {
    clock: VirtualClock,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    routes: Routes,
    news: broadcast::Sender<RouteNews>,
    pace: Pace,
    orders: Orders,
    clients: Arc<AtomicUsize>,
}

/// What carries out orders for the lab, given and answered as JSON.
pub type Orders = Arc<dyn Fn(&str) -> String + Send + Sync>;

impl Control {
    /// An endpoint over `clock`; `news` is fed by whoever changes `routes`.
    #[must_use]
    pub fn new(
        clock: VirtualClock,
        routes: Routes,
        news: broadcast::Sender<RouteNews>,
        pace: Pace,
        hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    ) -> Self {
        let orders: Orders = Arc::new(|_| json_refusal("this lab takes no orders"));
        Control { clock, hello, routes, news, pace, orders, clients: Arc::new(AtomicUsize::new(0)) }
    }

    /// The endpoint also takes orders (`do JSON`, answered by `did JSON`).
    #[must_use]
    pub fn with_orders(mut self, orders: Orders) -> Self {
        self.orders = orders;
        self
    }

    /// Starts to listen on a port of this machine.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn listen(self) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
        let at = socket.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                stream.set_nodelay(true).ok();
                tokio::spawn(self.clone().client(stream));
            }
        });
        Ok((at, task))
    }

    async fn client(self, stream: TcpStream) {
        // Time stands until the client holds a mark of its own.
        let mark = self.clock.busy_guard();
        if self.clients.fetch_add(1, Ordering::SeqCst) == 0 {
            self.clock.set_mode(self.pace.shared);
        }
        let mut c = Connection { control: self.clone(), marks: 0, timers: Arc::default(), first: Some(mark) };
        c.serve(stream).await;
        c.release().await;
        if self.clients.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.clock.set_mode(self.pace.alone);
        }
    }
}

fn json_refusal(why: &str) -> String {
    serde_json::to_string(&Err::<String, _>(why)).unwrap_or_default()
}

/// A timer of the client.
struct Timer {
    task: JoinHandle<()>,
    /// Ends the guard that a fired deadline holds.
    ack: Option<oneshot::Sender<()>>,
}

struct Connection {
    control: Control,
    marks: i64,
    timers: Arc<Mutex<HashMap<u64, Timer>>>,
    first: Option<BusyGuard>,
}

impl Connection {
    async fn serve(&mut self, stream: TcpStream) {
        let (read, mut write) = stream.into_split();
        let (tx, mut rx) = mpsc::unbounded_channel::<String>();
        let writer = tokio::spawn(async move {
            while let Some(line) = rx.recv().await {
                if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let mut news = self.control.news.subscribe();
        let mut lines = BufReader::new(read).lines();
        loop {
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) => self.line(&line, &tx),
                    _ => break,
                },
                n = news.recv() => match n {
                    Ok(RouteNews::Up(addr, at)) => { tx.send(format!("up {addr} {at}")).ok(); }
                    Ok(RouteNews::Down(addr)) => { tx.send(format!("down {addr}")).ok(); }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.all_routes(&tx),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        writer.abort();
    }

    fn all_routes(&self, tx: &mpsc::UnboundedSender<String>) {
        for (addr, at) in self.control.routes.all() {
            tx.send(format!("up {addr} {at}")).ok();
        }
    }

    fn line(&mut self, line: &str, tx: &mpsc::UnboundedSender<String>) {
        if let Some(order) = line.strip_prefix("do ") {
            tx.send(format!("did {}", (self.control.orders)(order))).ok();
            return;
        }
        let clock = &self.control.clock;
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        let numbers: Vec<i64> = words.map(|w| w.parse().unwrap_or(0)).collect();
        let number = |i: usize| numbers.get(i).copied().unwrap_or(0);
        let natural = |i: usize| u64::try_from(number(i)).unwrap_or(0);
        match word {
            "hello" => {
                let hello = serde_json::to_string(&(self.control.hello)()).unwrap_or_default();
                self.all_routes(tx);
                tx.send(format!("hello {hello}")).ok();
            }
            "now" => {
                tx.send(format!("now {}", clock.now_ms())).ok();
            }
            "mark" => {
                self.marks += number(0);
                clock.mark(number(0));
                if number(0) > 0 {
                    tx.send(format!("marked {}", clock.now_ms())).ok();
                    self.first.take();
                }
            }
            "sleep" | "deadline" => self.arm(natural(0), natural(1), word == "sleep", tx),
            "ack" | "cancel" => self.cancel(natural(0)),
            _ => {}
        }
    }

    fn arm(&self, id: u64, due: u64, park: bool, tx: &mpsc::UnboundedSender<String>) {
        let (clock, tx) = (self.control.clock.clone(), tx.clone());
        let (ack, acked) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            if park {
                clock.sleep_until(due).await;
                tx.send(format!("fired {id} {}", clock.now_ms())).ok();
            } else {
                let mark = clock.deadline(due).await;
                tx.send(format!("fired {id} {}", clock.now_ms())).ok();
                // Time must not run on before the client has acted on it.
                acked.await.ok();
                drop(mark);
            }
        });
        let timer = Timer { task, ack: (!park).then_some(ack) };
        let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        timers.retain(|_, t| !t.task.is_finished());
        timers.insert(id, timer);
    }

    /// Drops a timer. A parked sleeper takes its mark back; no time passes in between.
    fn cancel(&self, id: u64) {
        let timer = self.timers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(timer) = timer else { return };
        let mark = self.control.clock.busy_guard();
        tokio::spawn(async move {
            timer.task.abort();
            drop(timer.ack);
            timer.task.await.ok();
            drop(mark);
        });
    }

    /// Gives everything back that the client held.
    async fn release(&mut self) {
        let mark = self.control.clock.busy_guard();
        let timers: Vec<Timer> = {
            let mut t = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
            t.drain().map(|(_, t)| t).collect()
        };
        for t in timers {
            t.task.abort();
            t.task.await.ok();
        }
        // Sleepers have taken theirs back: what is left is what the client itself held.
        self.control.clock.mark(-self.marks);
        self.first.take();
        drop(mark);
    }
}
