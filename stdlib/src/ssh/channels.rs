//! How many channels a connection has open at once. The server's limit (`MaxSessions`, 10 by default) is not
//! announced and its slots are freed later than the client sees a close, so the limit is felt out: a refusal lowers
//! it and is tried again, a long run without refusals raises it. The next channel is opened beforehand, so that a
//! command costs one round trip instead of two.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::core::ctx::Ctx;

use super::conn::{Lost, plain};
use super::trust::Check;

/// Where the limit begins.
const FIRST: usize = 8;
/// Where raising it ends.
const MOST: usize = 64;
/// Openings without a refusal that raise the limit by one.
const SMOOTH: usize = 32;
/// How long a refusal is tried again, in pauses that double up to [`LONGEST`].
const PATIENCE: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(40);

/// The channels of one connection.
pub(super) struct Channels {
    handle: Arc<Handle<Check>>,
    free: Arc<Semaphore>,
    limit: AtomicUsize,
    /// Permits that are to vanish when they come back.
    debt: Arc<AtomicUsize>,
    smooth: AtomicUsize,
    spare: Mutex<Option<Lease>>,
    ready: Notify,
}

/// One open channel with its place under the limit.
pub(super) struct Lease {
    pub channel: Channel<Msg>,
    pub place: Place,
}

/// A place under the limit; given back when dropped.
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    debt: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let owed = self.debt.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |d| d.checked_sub(1)).is_ok();
        if owed {
            permit.forget();
        }
    }
}

impl Channels {
    pub(super) fn new(handle: Arc<Handle<Check>>) -> Arc<Self> {
        Arc::new(Channels {
            handle,
            free: Arc::new(Semaphore::new(FIRST)),
            limit: AtomicUsize::new(FIRST),
            debt: Arc::new(AtomicUsize::new(0)),
            smooth: AtomicUsize::new(0),
            spare: Mutex::new(None),
            ready: Notify::new(),
        })
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        Place { permit: Some(permit), debt: self.debt.clone() }
    }

    fn spare(&self) -> Option<Lease> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// An open channel: the one opened beforehand, else a new one when there is room.
    pub(super) async fn get(&self, ctx: &Ctx) -> Result<Lease, Lost> {
        loop {
            let ready = self.ready.notified();
            tokio::pin!(ready);
            ready.as_mut().enable();
            if let Some(lease) = self.spare() {
                return Ok(lease);
            }
            let permit = match self.free.clone().try_acquire_owned() {
                Ok(p) => p,
                Err(_) => {
                    // Others hold the places and may be waiting for time to pass.
                    let lent = ctx.clock.lend();
                    let got = tokio::select! {
                        p = self.free.clone().acquire_owned() => Some(p),
                        () = ready => None,
                    };
                    drop(lent);
                    match got {
                        Some(p) => p.map_err(|e| Lost::NotSent(e.to_string()))?,
                        None => continue,
                    }
                }
            };
            let place = self.place(permit);
            return Ok(Lease { channel: self.open(ctx).await?, place });
        }
    }

    async fn open(&self, ctx: &Ctx) -> Result<Channel<Msg>, Lost> {
        let (mut pause, mut waited) = (SHORTEST, Duration::ZERO);
        loop {
            match self.handle.channel_open_session().await {
                Ok(c) => {
                    self.went_well();
                    return Ok(c);
                }
                Err(e) if no_room(&e) && waited < PATIENCE => {
                    self.refused();
                    ctx.clock.sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(LONGEST);
                }
                Err(e) => return Err(Lost::NotSent(plain(&e))),
            }
        }
    }

    /// Opens the next channel beforehand, unless one is there or others wait for the room.
    pub(super) fn prepare(self: &Arc<Self>) {
        if self.spare.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        let Ok(permit) = self.free.clone().try_acquire_owned() else { return };
        let (me, place) = (self.clone(), self.place(permit));
        tokio::spawn(async move {
            match me.handle.channel_open_session().await {
                Ok(channel) => {
                    *me.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(Lease { channel, place });
                    me.ready.notify_one();
                }
                Err(e) if no_room(&e) => me.refused(),
                Err(_) => {}
            }
        });
    }

    fn refused(&self) {
        self.smooth.store(0, Ordering::SeqCst);
        let lower = |l: usize| if l > 1 { Some(l - 1) } else { None };
        if self.limit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lower).is_ok()
            && self.free.forget_permits(1) == 0
        {
            self.debt.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn went_well(&self) {
        if self.smooth.fetch_add(1, Ordering::SeqCst) + 1 < SMOOTH || self.free.available_permits() > 0 {
            return;
        }
        self.smooth.store(0, Ordering::SeqCst);
        let higher = |l: usize| if l < MOST { Some(l + 1) } else { None };
        if self.limit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, higher).is_ok() {
            self.free.add_permits(1);
        }
    }
}

fn no_room(e: &russh::Error) -> bool {
    matches!(
        e,
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage)
    )
}
