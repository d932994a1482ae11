//! Ctrl-C: the first one begins nothing new and lets effects under way finish, the second ends the process.
use std::sync::Arc;
use std::time::Duration;

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::flight::Flight;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::screen::Screen;

/// How long effects under way may take after an interruption, on this machine's clock.
const GRACE: u64 = 60;

/// Ctrl-C and SIGTERM, caught from the moment this is made.
struct Signals {
    #[cfg(unix)]
    both: Option<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)>,
}

impl Signals {
    /// Catches them before anything else happens: a task that is only spawned may be late.
    fn catch(rt: &tokio::runtime::Handle) -> Self {
        let _entered = rt.enter();
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let both = signal(SignalKind::interrupt()).ok().zip(signal(SignalKind::terminate()).ok());
            Signals { both }
        }
        #[cfg(not(unix))]
        Signals {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some((int, term)) = &mut self.both {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            return;
        }
        tokio::signal::ctrl_c().await.ok();
    }
}

/// What an interruption works with: the token that lets nothing new begin, and what is under way.
#[derive(Clone, Default)]
pub struct Stop {
    /// Nothing new begins once this is cancelled.
    pub cancel: CancellationToken,
    /// Effects under way.
    pub flight: Flight,
}

impl Stop {
    /// Ends everything now: the far side is gone.
    pub fn at_once(&self) {
        self.cancel.cancel();
        self.flight.abort();
    }
}

/// Cancels `cancel` at Ctrl-C or SIGTERM; ends the process at the second one.
pub fn watch(rt: &tokio::runtime::Handle, cancel: CancellationToken) {
    let mut signals = Signals::catch(rt);
    rt.spawn(async move {
        signals.next().await;
        cancel.cancel();
        signals.next().await;
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
}

/// As [`watch`], for a run: says what is waited for, counts down, and gives up when the grace is over.
pub fn watch_run(rt: &tokio::runtime::Handle, screen: Arc<Screen>, stop: Stop) {
    let mut signals = Signals::catch(rt);
    rt.spawn(async move {
        signals.next().await;
        stop.cancel.cancel();
        let counted = tokio::select! {
            () = signals.next() => false,
            () = count_down(&screen, &stop.flight) => true,
        };
        if counted {
            signals.next().await;
        }
        stop.flight.left().iter().for_each(|left| screen.err(left));
        screen.err("stopped at once; the journal says what was under way: `gpuhost runs show`");
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
}

/// Says every few seconds what is still under way, until nothing is or the grace is over.
async fn count_down(screen: &Screen, flight: &Flight) {
    let start = flight.list();
    if start.is_empty() {
        screen.err("interrupted: nothing is under way; stopping");
        return;
    }
    screen.err("interrupted: nothing new begins; Ctrl-C again stops at once");
    for left in (1..=GRACE).rev() {
        let list = flight.list();
        if list.is_empty() {
            screen.err("what was under way has ended; stopping");
            return;
        }
        if left % 5 == 0 {
            screen.err(&format!("{left} s left for {}: {}", count(list.len()), names(&list)));
        }
        Clock::Real.sleep(Duration::from_secs(1)).await;
    }
    let list = flight.list();
    if !list.is_empty() {
        screen.err(&format!("the grace is over; left in doubt: {}", names(&list)));
    }
    flight.abort();
}

fn count(n: usize) -> String {
    if n == 1 { "1 effect".to_owned() } else { format!("{n} effects") }
}

fn names(list: &[String]) -> String {
    let shown: Vec<&str> = list.iter().take(4).map(String::as_str).collect();
    let more = if list.len() > 4 { format!(" and {} more", list.len() - 4) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
