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
    transaction::{Slot, Taken},
    work::{Attempts, bounded, failure_of},
};

/// Handles these messages one after another, each within a savepoint, and commits once. After `long_enough` none is begun any
/// more, but the first one always is. What cannot be committed together is handled again, each message in a transaction of its
/// own, so that the one at fault is found.
///
/// A transaction that is not committed, because this is dropped or the database is away, is undone by sqlx or by the server.
pub(super) async fn handle<L: InTransaction>(
    log: Arc<L>,
    pieces: Vec<Piece>,
    attempts: Attempts,
    long_enough: Duration,
) -> Result<Vec<PieceEnd>, LogError> {
    match handle_together(&log, &pieces, &attempts, long_enough).await {
        Err(Trouble::Answered(error)) if pieces.len() > 1 => {
            tracing::debug!(%error, "a batch was not committed: its messages are handled one by one");
        }
        ended => return alone(ended),
    }
    let mut ends = Vec::with_capacity(pieces.len());
    for piece in &pieces {
        let ended = handle_together(&log, std::slice::from_ref(piece), &attempts, long_enough).await;
        match alone(ended) {
            Ok(end) => ends.extend(end),
            // What was committed before is told; the rest is asked for again.
            Err(error) if ends.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    ends.extend(pieces[ends.len()..].iter().map(|_| PieceEnd::NotBegun));
    Ok(ends)
}

/// A message that cannot be committed alone has failed.
fn alone(ended: Result<Vec<PieceEnd>, Trouble>) -> Result<Vec<PieceEnd>, LogError> {
    match ended {
        Ok(ends) => Ok(ends),
        Err(Trouble::Away(error)) => Err(error),
        Err(Trouble::Answered(error)) => {
            let error = format!("the handler succeeded, and what it wrote cannot be committed: {error}");
            Ok(vec![PieceEnd::Ended(Err(Failure::Handler { error }))])
        }
    }
}

async fn handle_together<L: InTransaction>(
    log: &Arc<L>,
    pieces: &[Piece],
    attempts: &Attempts,
    long_enough: Duration,
) -> Result<Vec<PieceEnd>, Trouble> {
    let transaction = step::<L, _>("beginning a transaction", log.begin()).await.map_err(Trouble::into_away)?;
    let slot = Arc::new(Slot::new(transaction, L::is_away, L::is_away_code));
    let (log, attempts) = (Arc::clone(log), attempts.clone());
    let mut batch = Batch { log, slot, attempts, has_savepoint: false, to_take_out: Vec::new() };
    let ids: Vec<_> = pieces.iter().filter_map(|piece| piece.id.clone()).collect();
    let mut admissions = batch.enter(&ids).await.map_err(Trouble::into_away)?.into_iter();
    let mut ends = Vec::with_capacity(pieces.len());
    let since = Instant::now();
    for piece in pieces {
        let admission = match &piece.id {
            Some(_) => admissions.next().unwrap_or(Admission::InFlight),
            None => Admission::Fresh,
        };
        ends.push(match admission {
            Admission::AlreadyHandled => PieceEnd::AlreadyHandled,
            Admission::InFlight => PieceEnd::InFlight,
            Admission::Fresh if batch.has_savepoint && since.elapsed() > long_enough => {
                batch.to_take_out.extend(piece.id.clone());
                PieceEnd::NotBegun
            }
            Admission::Fresh => match batch.handle(piece.clone()).await? {
                Handled::Ended(end) => end,
                Handled::Stuck(failure) => {
                    // Nothing of this can be committed: all but the one at fault are to be handled again.
                    let mut ends: Vec<_> = ends.into_iter().map(undone).collect();
                    ends.push(PieceEnd::Ended(Err(failure)));
                    ends.extend(pieces[ends.len()..].iter().map(|_| PieceEnd::NotBegun));
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
    Ended(PieceEnd),
    /// Its handler has left the transaction in a state that nobody can go on with.
    Stuck(Failure),
}

/// Why a statement of ours did not do.
enum Trouble {
    /// The database answered that it cannot be: what a handler did before makes it so.
    Answered(sqlx::Error),
    /// The database did not answer, or answered that it is not well.
    Away(LogError),
}

impl Trouble {
    /// Where no handler has been at work yet.
    fn into_away(self) -> Self {
        match self {
            Self::Answered(error) => Self::Away(LogError { step: HANDLING, cause: Box::new(error) }),
            away => away,
        }
    }
}

impl<L: InTransaction> Batch<L> {
    async fn enter(&mut self, ids: &[HandledId]) -> Result<Vec<Admission>, Trouble> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.transaction()?;
        step::<L, _>("entering what is handled", self.log.enter(&mut transaction, ids)).await
    }

    async fn handle(&mut self, piece: Piece) -> Result<Handled, Trouble> {
        if !self.has_savepoint {
            self.run("setting a savepoint", "SAVEPOINT correio_message").await.map_err(Trouble::into_away)?;
            self.has_savepoint = true;
        }
        let Piece { id, handler, mut context } = piece;
        context.transaction = Some(Arc::clone(&self.slot) as _);
        let attempt = AssertUnwindSafe(self.attempts.run(handler, context)).catch_unwind().await;
        let mut result = attempt.unwrap_or_else(|panic| Err(failure_of(panic)));
        let away = self.slot.away();
        if self.slot.take().is_none() {
            let error = "the handler ended, and something that it started still holds its transaction".to_owned();
            return Ok(Handled::Stuck(Failure::Handler { error }));
        }
        if matches!(&result, Ok(answer) if is_kept(&answer.verdict)) {
            // The next message's savepoint in the same round trip.
            let keep = "RELEASE SAVEPOINT correio_message; SAVEPOINT correio_message";
            match self.run("keeping what a message did", keep).await {
                Ok(()) => return Ok(Handled::Ended(PieceEnd::Ended(result))),
                // A statement that failed and was passed over leaves PostgreSQL's transaction of no use.
                Err(Trouble::Answered(error)) => {
                    let error = format!("the handler succeeded, and what it wrote cannot be kept: {error}");
                    result = Err(Failure::Handler { error });
                }
                // It may have been kept, so that there is nothing left to undo.
                Err(away) => return Err(away),
            }
        }
        match (self.run("undoing what a message did", "ROLLBACK TO SAVEPOINT correio_message").await, away, result) {
            (Ok(()), Some(why), _) => {
                self.to_take_out.extend(id);
                Ok(Handled::Ended(PieceEnd::Away(why)))
            }
            (Ok(()), None, result) => {
                self.to_take_out.extend(id);
                Ok(Handled::Ended(PieceEnd::Ended(result)))
            }
            // No fault of the message: it is not one attempt more.
            (Err(_), Some(why), _) => Err(Trouble::Away(LogError { step: HANDLING, cause: why.into() })),
            (Err(Trouble::Answered(_)), None, Err(failure)) => Ok(Handled::Stuck(failure)),
            (Err(Trouble::Answered(error)), None, Ok(_)) => {
                let error = format!("the handler has ended its transaction: {error}");
                Ok(Handled::Stuck(Failure::Handler { error }))
            }
            // What it has asked the database for may still be at work there.
            (Err(_), None, Err(failure @ Failure::TimedOut { .. })) if self.is_there().await => {
                Ok(Handled::Stuck(failure))
            }
            (Err(away), None, _) => Err(away),
        }
    }

    async fn commit(&mut self) -> Result<(), Trouble> {
        let to_take_out = std::mem::take(&mut self.to_take_out);
        if !to_take_out.is_empty() {
            let mut transaction = self.transaction()?;
            let taking = self.log.take_out(&mut transaction, &to_take_out);
            step::<L, _>("taking out what was not handled", taking).await.map_err(Trouble::into_away)?;
        }
        let transaction = self.slot.take_out().ok_or_else(in_use)?;
        step::<L, _>("committing", transaction.commit()).await
    }

    async fn run(&mut self, name: &'static str, statements: &'static str) -> Result<(), Trouble> {
        let mut transaction = self.transaction()?;
        step::<L, _>(name, L::run(&mut transaction, statements)).await
    }

    /// Whether the database answers on another connection.
    async fn is_there(&self) -> bool {
        step::<L, _>("asking whether it is there", self.log.is_there()).await.is_ok()
    }

    fn transaction(&self) -> Result<Taken<L::Database>, Trouble> {
        self.slot.take().ok_or_else(in_use)
    }
}

/// The transaction ends with the batch, whoever still has a context of it.
impl<L: InTransaction> Drop for Batch<L> {
    fn drop(&mut self) {
        drop(self.slot.take_out());
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

async fn step<L: InTransaction, T>(
    name: &'static str,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Trouble> {
    match bounded(name, async { Ok(asked.await) }).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error @ sqlx::Error::Database(_))) if !L::is_away(&error) => Err(Trouble::Answered(error)),
        Ok(Err(error)) => Err(Trouble::Away(LogError { step: name, cause: Box::new(error) })),
        Err(late) => Err(Trouble::Away(late)),
    }
}

fn in_use() -> Trouble {
    let cause = "the transaction is in use by what a handler has left behind".into();
    Trouble::Away(LogError { step: HANDLING, cause })
}

/// How long a transaction takes new messages in: others want the database, too.
pub(super) const LONG_ENOUGH: Duration = Duration::from_millis(100);
const HANDLING: &str = "handling in a transaction";

#[cfg(all(test, feature = "sqlite"))]
mod tests;
