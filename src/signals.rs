//! What a signal to the program means.

use std::future::Future;
use std::io;

use crate::cli::complain;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Returns at the first SIGTERM, SIGINT or SIGQUIT. The second one ends the program at once, and its children with it.
pub(crate) fn stop() -> io::Result<impl Future<Output = ()>> {
    let mut signals = StopSignals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        quit: signal(SignalKind::quit())?,
    };
    Ok(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping");
        tokio::spawn(async move {
            let name = signals.next().await;
            // Not through the log, which may be what is stuck.
            complain(format_args!("{name} again: stopping at once"));
            std::process::exit(1);
        });
    })
}

/// SIGHUPs from now on. Before, one ends the program, and leaves its children behind.
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Hears them, and forgets none until something is done.
    pub(crate) fn hear() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Does something at each. The next one need not wait until that is over: it may be what mends it.
    pub(crate) fn act<F: Future<Output = ()> + Send + 'static>(mut self, mut act: impl FnMut() -> F + Send + 'static) {
        tokio::spawn(async move {
            while self.0.recv().await.is_some() {
                tokio::spawn(act());
            }
        });
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
