//! SIGINT and SIGTERM: the first one drains, the second one ends at once.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::program::status::Status;

/// Does the work and cancels `stop` at the first signal; `None` when a second one ended it where it stood.
pub(crate) async fn stopping<T>(work: impl Future<Output = T>, stop: &CancellationToken, status: &Status) -> Option<T> {
    tokio::pin!(work);
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            status.say(&format!("signals cannot be heard ({error}): a signal ends this at once"));
            return Some(work.await);
        }
    };
    let name = tokio::select! {
        done = &mut work => return Some(done),
        name = signals.next() => name,
    };
    status.say(&format!("{name}: finishing what was begun, taking nothing new; a second signal stops at once"));
    stop.cancel();
    tokio::select! {
        done = &mut work => Some(done),
        name = signals.next() => {
            status.say(&format!("{name} again: stopped at once; unfinished messages go back to the queue"));
            None
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
