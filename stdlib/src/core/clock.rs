//! All waiting and all reading of time goes through here.
//!
//! Against real systems the clock is real. In the lab, client and simulator share one virtual
//! clock. Its time jumps to the next timer only when nothing is *busy*. The rules of busy marks:
//!
//! * Every script thread of a run holds one mark while it lives ([`Clock::busy`]). It keeps it
//!   while a request is in flight.
//! * [`Clock::sleep`] parks: it gives one mark back and has it again when it returns (or is dropped).
//! * A lab handler that serves a request of *our own* client takes no mark: the client's covers it.
//!   If it waits for virtual time it parks too, which lends out the client's mark.
//!   A handler that serves a foreign client takes a mark of its own for as long as it works.
//! * [`VirtualClock::deadline`] is a passive timer: it neither gives nor takes a mark while it waits.
//! * Concurrency inside one op goes through [`Clock::join_all`], which gives each branch a mark.
#![allow(clippy::disallowed_methods)] // the one place that waits and reads time
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// How virtual time flows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Jumps to the next timer as soon as nothing is busy.
    Instant,
    /// Flows this many times faster than real time.
    Scaled(f64),
    /// Moves only by [`VirtualClock::advance`].
    Explicit,
}

struct Timer {
    fire: oneshot::Sender<()>,
}

struct Inner {
    now_ms: u64,
    mode: Mode,
    busy: i64,
    seq: u64,
    timers: BTreeMap<(u64, u64), Timer>,
    alarm_due: Option<u64>,
    alarm_pending: bool,
    alarm: Arc<tokio::sync::Notify>,
    real_anchor: std::time::Instant,
    anchor_ms: u64,
    rearm: Arc<tokio::sync::Notify>,
}

/// Shared virtual time of one lab.
#[derive(Clone)]
pub struct VirtualClock {
    inner: Arc<Mutex<Inner>>,
}

/// Where time comes from.
#[derive(Clone)]
pub enum Clock {
    /// The machine's clock.
    Real,
    /// A lab's clock in this process.
    Virtual(VirtualClock),
    /// The clock of a lab served by another process.
    Remote(Arc<dyn RemoteClock>),
}

/// The clock of a lab that another process serves.
pub trait RemoteClock: Send + Sync {
    /// Milliseconds since 1970 in lab time.
    fn now_ms(&self) -> Pin<Box<dyn Future<Output = u64> + Send + '_>>;
    /// The last known time without asking.
    fn last_ms(&self) -> u64;
    /// Parks until `due_ms`; gives a mark back for that long.
    fn sleep_until(&self, due_ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Passive timer.
    fn deadline(&self, due_ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Takes (`+1`) or gives back (`-1`) a mark.
    fn mark(&self, delta: i64);
}

/// One busy mark; gives it back when dropped.
pub struct BusyGuard {
    clock: Clock,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.clock.mark(-1);
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VirtualClock {
    /// A clock that stands at `now_ms` (milliseconds since 1970).
    #[must_use]
    pub fn new(now_ms: u64, mode: Mode) -> Self {
        VirtualClock {
            inner: Arc::new(Mutex::new(Inner {
                now_ms,
                mode,
                busy: 0,
                seq: 0,
                timers: BTreeMap::new(),
                alarm_due: None,
                alarm_pending: false,
                alarm: Arc::new(tokio::sync::Notify::new()),
                real_anchor: std::time::Instant::now(),
                anchor_ms: now_ms,
                rearm: Arc::new(tokio::sync::Notify::new()),
            })),
        }
    }

    /// Milliseconds since 1970 in lab time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let mut i = lock(&self.inner);
        flow(&mut i);
        i.now_ms
    }

    /// Changes how time flows from here on.
    pub fn set_mode(&self, mode: Mode) {
        let mut i = lock(&self.inner);
        flow(&mut i);
        i.real_anchor = std::time::Instant::now();
        i.anchor_ms = i.now_ms;
        i.mode = mode;
        settle(&mut i);
        i.rearm.notify_one();
    }

    /// How time flows now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        lock(&self.inner).mode
    }

    /// Adds (or takes away) busy marks.
    pub fn mark(&self, delta: i64) {
        let mut i = lock(&self.inner);
        i.busy += delta;
        settle(&mut i);
    }

    /// How many marks are held; for tests and `lab status`.
    #[must_use]
    pub fn busy(&self) -> i64 {
        lock(&self.inner).busy
    }

    /// Takes a mark until the guard is dropped.
    #[must_use]
    pub fn busy_guard(&self) -> BusyGuard {
        Clock::Virtual(self.clone()).busy()
    }

    /// Moves time by hand (mode `Explicit`), firing the timers on the way.
    pub fn advance(&self, by: Duration) {
        let mut i = lock(&self.inner);
        let to = i.now_ms + by.as_millis() as u64;
        fire_until(&mut i, to);
        i.now_ms = i.now_ms.max(to);
    }

    /// Parks the caller until `due_ms`: its mark is lent out meanwhile.
    pub async fn sleep_until(&self, due_ms: u64) {
        let Some((key, rx)) = self.arm(due_ms, true) else { return };
        let mut parked = Parked { clock: self.clone(), key, fired: false, rx };
        // A fired timer has taken the mark back for us.
        parked.fired = (&mut parked.rx).await.is_ok();
    }

    /// Parks the caller for `d`.
    pub async fn sleep(&self, d: Duration) {
        self.sleep_until(self.now_ms() + d.as_millis() as u64).await;
    }

    /// Passive timer: resolves at `due_ms`. The returned guard holds a mark so that time does not
    /// run on before the caller has acted on it.
    ///
    /// Armed at the call, not at the first poll: what it guards may let time run as soon as it is polled.
    pub fn deadline(&self, due_ms: u64) -> impl Future<Output = BusyGuard> + Send + 'static {
        let armed = self.arm(due_ms, false).map(|(key, rx)| Passive { clock: self.clone(), key, rx, fired: false });
        let clock = self.clone();
        async move {
            match armed {
                Some(mut passive) => {
                    passive.fired = (&mut passive.rx).await.is_ok();
                    BusyGuard { clock: Clock::Virtual(clock) }
                }
                None => clock.busy_guard(),
            }
        }
    }

    fn arm(&self, due_ms: u64, park: bool) -> Option<((u64, u64), oneshot::Receiver<()>)> {
        let mut i = lock(&self.inner);
        flow(&mut i);
        if due_ms <= i.now_ms {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        i.seq += 1;
        let key = (due_ms, i.seq);
        i.timers.insert(key, Timer { fire: tx });
        if park {
            i.busy -= 1;
        }
        settle(&mut i);
        i.rearm.notify_one();
        Some((key, rx))
    }

    /// Sets when the world's event queue wants to run next. Called under the world's lock, so that
    /// no time can pass between scheduling an event and the clock knowing of it.
    pub fn set_alarm(&self, due_ms: Option<u64>) {
        let mut i = lock(&self.inner);
        flow(&mut i);
        i.alarm_due = due_ms;
        settle(&mut i);
        i.rearm.notify_one();
    }

    /// Waits until the alarm is due. The guard holds a mark while the events are handled.
    pub async fn alarm(&self) -> BusyGuard {
        let n = lock(&self.inner).alarm.clone();
        n.notified().await;
        lock(&self.inner).alarm_pending = false;
        BusyGuard { clock: Clock::Virtual(self.clone()) }
    }

    /// Drives timers in scaled mode; runs until dropped. Harmless in other modes.
    pub async fn drive(&self) {
        let rearm = lock(&self.inner).rearm.clone();
        loop {
            let wait = {
                let mut i = lock(&self.inner);
                flow(&mut i);
                match (i.mode, next_due(&i)) {
                    (Mode::Scaled(k), Some(due)) => {
                        let virt = due.saturating_sub(i.now_ms) as f64;
                        Some(Duration::from_secs_f64((virt / k / 1000.0).max(0.0005)))
                    }
                    _ => None,
                }
            };
            match wait {
                Some(d) => {
                    tokio::select! { () = tokio::time::sleep(d) => {}, () = rearm.notified() => {} }
                }
                None => rearm.notified().await,
            }
        }
    }
}

fn next_due(i: &Inner) -> Option<u64> {
    let timer = i.timers.keys().next().map(|k| k.0);
    match (timer, i.alarm_due) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Lets scaled time flow up to the real present.
fn flow(i: &mut Inner) {
    if let Mode::Scaled(k) = i.mode {
        let real = i.real_anchor.elapsed().as_secs_f64();
        let now = i.anchor_ms + (real * k * 1000.0) as u64;
        fire_until(i, now);
        i.now_ms = i.now_ms.max(now);
    }
}

/// In instant mode: nothing busy, so jump to the next timer.
fn settle(i: &mut Inner) {
    if i.mode != Mode::Instant {
        return;
    }
    while i.busy <= 0 {
        let Some(due) = next_due(i) else { return };
        fire_one(i, due);
    }
}

fn fire_until(i: &mut Inner, to: u64) {
    while let Some(due) = next_due(i) {
        if due > to {
            return;
        }
        fire_one(i, due);
    }
}

/// Fires the earliest timer; the woken party gets a mark.
fn fire_one(i: &mut Inner, due: u64) {
    i.now_ms = i.now_ms.max(due);
    if i.alarm_due == Some(due) {
        i.alarm_due = None;
        if !i.alarm_pending {
            i.alarm_pending = true;
            i.busy += 1;
            i.alarm.notify_one();
        }
        return;
    }
    if let Some((_, t)) = i.timers.pop_first() {
        i.busy += 1;
        if t.fire.send(()).is_err() {
            i.busy -= 1;
        }
    }
}

struct Parked {
    clock: VirtualClock,
    key: (u64, u64),
    fired: bool,
    rx: oneshot::Receiver<()>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        if self.fired {
            return;
        }
        let mut i = lock(&self.clock.inner);
        // Still armed: take our mark back. Already fired but not yet seen: the timer did that.
        if i.timers.remove(&self.key).is_some() {
            i.busy += 1;
        }
    }
}

struct Passive {
    clock: VirtualClock,
    key: (u64, u64),
    fired: bool,
    rx: oneshot::Receiver<()>,
}

impl Drop for Passive {
    fn drop(&mut self) {
        if self.fired {
            return;
        }
        let mut i = lock(&self.clock.inner);
        if i.timers.remove(&self.key).is_none() {
            // It fired and nobody took the mark.
            i.busy -= 1;
            settle(&mut i);
        }
    }
}

impl Clock {
    /// Milliseconds since 1970.
    pub async fn now_ms(&self) -> u64 {
        match self {
            Clock::Remote(r) => r.now_ms().await,
            _ => self.last_ms(),
        }
    }

    /// Milliseconds since 1970 as far as known without asking a server.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        match self {
            Clock::Real => {
                let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                d.map_or(0, |d| d.as_millis() as u64)
            }
            Clock::Virtual(v) => v.now_ms(),
            Clock::Remote(r) => r.last_ms(),
        }
    }

    /// Waits for `d`. The caller's busy mark is lent out meanwhile.
    pub async fn sleep(&self, d: Duration) {
        match self {
            Clock::Real => tokio::time::sleep(d).await,
            Clock::Virtual(v) => v.sleep(d).await,
            Clock::Remote(r) => {
                let now = r.now_ms().await;
                r.sleep_until(now + d.as_millis() as u64).await;
            }
        }
    }

    /// Runs `work` but no longer than `limit`; `None` when time ran out.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        match self {
            Clock::Real => tokio::time::timeout(limit, work).await.ok(),
            Clock::Virtual(v) => {
                let due = v.now_ms() + limit.as_millis() as u64;
                let deadline = v.deadline(due);
                let mut work = Box::pin(work);
                tokio::select! { biased;
                    r = &mut work => Some(r),
                    mark = deadline => { drop(work); drop(mark); None }
                }
            }
            Clock::Remote(r) => {
                let due = r.now_ms().await + limit.as_millis() as u64;
                tokio::select! { biased; x = work => Some(x), () = r.deadline(due) => None }
            }
        }
    }

    /// Does `work` after `d`, beside the run: waiting takes and lends no mark, and time stands while `work` runs. For
    /// work that repeats: `before` is given back once the timer is armed, and what comes back holds time until then.
    pub async fn later<T>(
        &self,
        d: Duration,
        before: Option<BusyGuard>,
        work: impl Future<Output = T>,
    ) -> (T, Option<BusyGuard>) {
        match self {
            Clock::Real => {
                drop(before);
                tokio::time::sleep(d).await;
                (work.await, None)
            }
            Clock::Virtual(v) => {
                let armed = v.deadline(v.now_ms() + d.as_millis() as u64);
                drop(before);
                let mark = armed.await;
                (work.await, Some(mark))
            }
            Clock::Remote(r) => {
                // The server holds time from the moment it fires until the timer is dropped.
                let mut timer = r.deadline(r.last_ms() + d.as_millis() as u64);
                let fired = std::future::poll_fn(|cx| std::task::Poll::Ready(timer.as_mut().poll(cx).is_ready())).await;
                drop(before);
                if !fired {
                    timer.as_mut().await;
                }
                let out = work.await;
                let mark = self.busy();
                drop(timer);
                (out, Some(mark))
            }
        }
    }

    /// Runs futures at the same time, each with a busy mark of its own.
    pub async fn join_all<T>(&self, work: Vec<impl Future<Output = T>>) -> Vec<T> {
        if work.is_empty() {
            return Vec::new();
        }
        let clock = self.clone();
        let left = std::sync::atomic::AtomicUsize::new(work.len());
        let branches: Vec<_> = work
            .into_iter()
            .map(|w| {
                let mark = clock.busy();
                let left = &left;
                async move {
                    let out = w.await;
                    // The last one hands its mark over: between its end and the caller's turn no time may pass.
                    let last = left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1;
                    (out, last.then_some(mark))
                }
            })
            .collect();
        // The branches carry the marks now; the caller's own is lent out until they are done.
        let lent = Lent::new(self.clone());
        let out = futures::future::join_all(branches).await;
        drop(lent);
        out.into_iter().map(|(out, _mark)| out).collect()
    }

    /// Takes a busy mark until the guard is dropped.
    #[must_use]
    pub fn busy(&self) -> BusyGuard {
        self.mark(1);
        BusyGuard { clock: self.clone() }
    }

    /// Gives the caller's mark back until the guard is dropped (for a thread that only joins others).
    #[must_use]
    pub fn lend(&self) -> impl Drop + Send + 'static {
        Lent::new(self.clone())
    }

    fn mark(&self, delta: i64) {
        match self {
            Clock::Real => {}
            Clock::Virtual(v) => v.mark(delta),
            Clock::Remote(r) => r.mark(delta),
        }
    }
}

struct Lent(Clock);
impl Lent {
    fn new(c: Clock) -> Self {
        c.mark(-1);
        Lent(c)
    }
}
impl Drop for Lent {
    fn drop(&mut self) {
        self.0.mark(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_jumps_only_when_nothing_is_busy() {
        let v = VirtualClock::new(0, Mode::Instant);
        let c = Clock::Virtual(v.clone());
        let mark = c.busy();
        c.sleep(Duration::from_secs(60)).await;
        assert_eq!(v.now_ms(), 60_000);
        assert_eq!(v.busy(), 1);
        drop(mark);
        assert_eq!(v.busy(), 0);
    }

    #[tokio::test]
    async fn a_busy_neighbour_holds_time() {
        let v = VirtualClock::new(0, Mode::Instant);
        let c = Clock::Virtual(v.clone());
        let a = c.busy();
        let b = c.busy();
        let sleeper = tokio::spawn({
            let c = c.clone();
            async move { c.sleep(Duration::from_secs(1)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(v.now_ms(), 0);
        drop(b);
        sleeper.await.unwrap();
        assert_eq!(v.now_ms(), 1000);
        drop(a);
    }

    #[tokio::test]
    async fn a_deadline_stops_a_parked_sleep_and_the_mark_comes_back() {
        let v = VirtualClock::new(0, Mode::Instant);
        let c = Clock::Virtual(v.clone());
        let mark = c.busy();
        let r = c.within(Duration::from_secs(5), c.sleep(Duration::from_secs(50))).await;
        assert!(r.is_none());
        assert_eq!(v.now_ms(), 5000);
        assert_eq!(v.busy(), 1);
        drop(mark);
    }

    #[tokio::test]
    async fn join_all_sleeps_at_the_same_time() {
        let v = VirtualClock::new(0, Mode::Instant);
        let c = Clock::Virtual(v.clone());
        let mark = c.busy();
        let work: Vec<_> = [3u64, 1, 2]
            .into_iter()
            .map(|s| {
                let c = c.clone();
                async move {
                    c.sleep(Duration::from_secs(s)).await;
                    s
                }
            })
            .collect();
        assert_eq!(c.join_all(work).await, vec![3, 1, 2]);
        assert_eq!(v.now_ms(), 3000);
        assert_eq!(v.busy(), 1);
        drop(mark);
    }
}
