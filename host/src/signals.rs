//! Ctrl-C: the first one stops waiting ops and lets the run end in order, the second ends the process.
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

async fn next_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! { r = tokio::signal::ctrl_c() => { r.ok(); }, _ = term.recv() => {} }
            return;
        }
    }
    tokio::signal::ctrl_c().await.ok();
}

/// Cancels `cancel` at Ctrl-C or SIGTERM; ends the process at the second one.
pub fn watch(rt: &tokio::runtime::Handle, cancel: CancellationToken) {
    rt.spawn(async move {
        next_signal().await;
        cancel.cancel();
        next_signal().await;
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
}
