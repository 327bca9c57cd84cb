//! A batch of messages in one transaction: their effects and their ids are committed together, or not at all.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use correio_guarantees::{Admission, Failure, HandledId, Verdict};
use futures_util::FutureExt;

use super::{LogError, Piece, PieceEnd, in_transaction::InTransaction};
use crate::{
    reply::Answer,
    transaction::{Slot, Taken},
    work::{Attempts, bounded, failure_of},
};

/// Handles these messages one after another, each within a savepoint, and commits once. After `long_enough` none is begun any
/// more, but the first one always is.
///
/// A transaction that is not committed, because this is dropped or the database is away, is undone by sqlx or by the server.
pub(super) async fn handle<L: InTransaction>(
    log: Arc<L>,
    pieces: Vec<Piece>,
    attempts: Attempts,
    long_enough: Duration,
) -> Result<Vec<PieceEnd>, LogError> {
    let transaction = step("beginning a transaction", log.begin()).await?;
    let slot = Arc::new(Slot::new(transaction, L::is_away));
    let mut batch = Batch { log, slot, attempts, has_savepoint: false, to_take_out: Vec::new() };
    let ids: Vec<_> = pieces.iter().filter_map(|piece| piece.id.clone()).collect();
    let mut admissions = batch.enter(&ids).await?.into_iter();
    let mut ends = Vec::with_capacity(pieces.len());
    let since = Instant::now();
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        let admission = match &piece.id {
            Some(_) => admissions.next().unwrap_or(Admission::InFlight),
            None => Admission::Fresh,
        };
        ends.push(match admission {
            Admission::AlreadyHandled => PieceEnd::AlreadyHandled,
            Admission::InFlight => PieceEnd::InFlight,
            Admission::Fresh if batch.has_savepoint && since.elapsed() > long_enough => {
                batch.to_take_out.extend(piece.id);
                PieceEnd::NotBegun
            }
            Admission::Fresh => match batch.handle(piece).await? {
                Handled::Ended(result) => PieceEnd::Ended(result),
                Handled::Stuck(failure) => {
                    // Nothing of this can be committed: all but the one at fault are to be handled again.
                    let mut ends: Vec<_> = ends.into_iter().map(undone).collect();
                    ends.push(PieceEnd::Ended(Err(failure)));
                    ends.extend(pieces.map(|_| PieceEnd::NotBegun));
                    return Ok(ends);
                }
            },
        });
    }
    batch.commit().await?;
    Ok(ends)
}

struct Batch<L: InTransaction> {
    log: Arc<L>,
    slot: Arc<Slot<L::Database>>,
    attempts: Attempts,
    /// Whether one stands, with nothing behind it that is to be undone.
    has_savepoint: bool,
    /// What was entered and then not handled.
    to_take_out: Vec<HandledId>,
}

/// What became of one message.
enum Handled {
    Ended(Result<Answer, Failure>),
    /// Its handler has left the transaction in a state that nobody can go on with.
    Stuck(Failure),
}

impl<L: InTransaction> Batch<L> {
    async fn enter(&mut self, ids: &[HandledId]) -> Result<Vec<Admission>, LogError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.transaction()?;
        step("entering what is handled", self.log.enter(&mut transaction, ids)).await
    }

    async fn handle(&mut self, piece: Piece) -> Result<Handled, LogError> {
        if !self.has_savepoint {
            self.run("setting a savepoint", "SAVEPOINT correio_message").await?;
            self.has_savepoint = true;
        }
        let Piece { id, handler, mut context } = piece;
        context.transaction = Some(Arc::clone(&self.slot) as _);
        let attempt = AssertUnwindSafe(self.attempts.run(handler, context)).catch_unwind().await;
        let mut result = attempt.unwrap_or_else(|panic| Err(failure_of(panic)));
        if let Some(why) = self.slot.away() {
            // No fault of the message: it is not one attempt more.
            return Err(LogError { step: HANDLING, cause: why.into() });
        }
        if self.slot.take().is_none() {
            let error = "the handler ended, and something that it started still holds its transaction".to_owned();
            return Ok(Handled::Stuck(Failure::Handler { error }));
        }
        if matches!(&result, Ok(answer) if is_kept(&answer.verdict)) {
            // The next message's savepoint in the same round trip.
            let keep = "RELEASE SAVEPOINT correio_message; SAVEPOINT correio_message";
            match self.run("keeping what a message did", keep).await {
                Ok(()) => return Ok(Handled::Ended(result)),
                // A statement that failed and was passed over leaves PostgreSQL's transaction of no use.
                Err(error) => {
                    let error = format!("the handler succeeded, and what it wrote cannot be kept: {error}");
                    result = Err(Failure::Handler { error });
                }
            }
        }
        match (self.run("undoing what a message did", "ROLLBACK TO SAVEPOINT correio_message").await, result) {
            (Ok(()), result) => {
                self.to_take_out.extend(id);
                Ok(Handled::Ended(result))
            }
            // What it has asked the database for may still be at work there.
            (Err(_), Err(failure @ Failure::TimedOut { .. })) if self.is_there().await => Ok(Handled::Stuck(failure)),
            (Err(error), _) => Err(error),
        }
    }

    async fn commit(&mut self) -> Result<(), LogError> {
        let to_take_out = std::mem::take(&mut self.to_take_out);
        if !to_take_out.is_empty() {
            let mut transaction = self.transaction()?;
            step("taking out what was not handled", self.log.take_out(&mut transaction, &to_take_out)).await?;
        }
        let transaction = self.slot.take_out().ok_or_else(in_use)?;
        step("committing", transaction.commit()).await
    }

    async fn run(&mut self, name: &'static str, statements: &'static str) -> Result<(), LogError> {
        let mut transaction = self.transaction()?;
        step(name, L::run(&mut transaction, statements)).await
    }

    /// Whether the database answers on another connection.
    async fn is_there(&self) -> bool {
        step("beginning a transaction", self.log.begin()).await.is_ok()
    }

    fn transaction(&self) -> Result<Taken<L::Database>, LogError> {
        self.slot.take().ok_or_else(in_use)
    }
}

fn is_kept(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Done | Verdict::Drop { .. })
}

/// What becomes of a message whose batch is undone.
fn undone(end: PieceEnd) -> PieceEnd {
    match end {
        PieceEnd::Ended(Ok(_)) => PieceEnd::NotBegun,
        // A failure stays one: it was undone before.
        other => other,
    }
}

async fn step<T>(name: &'static str, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LogError> {
    bounded(name, async move { asked.await.map_err(|error| LogError { step: name, cause: Box::new(error) }) }).await
}

fn in_use() -> LogError {
    LogError { step: HANDLING, cause: "the transaction is in use by what a handler has left behind".into() }
}

/// How long a transaction takes new messages in: others want the database, too.
pub(super) const LONG_ENOUGH: Duration = Duration::from_millis(100);
const HANDLING: &str = "handling in a transaction";

#[cfg(all(test, feature = "sqlite"))]
mod tests;
