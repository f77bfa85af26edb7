//! What a signal to the program means.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::complain;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use restart_exporter::supervisor::kill_all_processes;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears all signals again that whoever started us has blocked. Other threads inherit what the first one does not hear, so
/// call it before there is a second.
pub(crate) fn unblock() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Returns at the first SIGTERM, SIGINT or SIGQUIT. The second one kills everything that was started, and ends the program.
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
            AGAIN.store(true, Ordering::Release);
            kill_all_processes().await;
            std::process::exit(1);
        });
    })
}

/// Was there a second signal?
static AGAIN: AtomicBool = AtomicBool::new(false);

/// Returns unless there was a second signal, which ends the program itself when it has killed what there is.
pub(crate) async fn unless_again() {
    if AGAIN.load(Ordering::Acquire) {
        std::future::pending().await
    }
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
