//! `consumer dead-letters list` and `replay`.

use std::io::{self, Write as _};

use correio_broker_config::{Address, cli::Exit};
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letters::{DeadLetters, DeadLettersError, ReplayFilter},
    program::{
        args::{List, Replay},
        failed::Failed,
        letters, signals,
        status::Status,
    },
};

/// Prints the dead letters of a queue; how many, on stderr.
pub(crate) async fn list(args: List, address: Address) -> Result<Exit, Failed> {
    let status = Status::plain();
    let queue = args.source.queue(args.ordered)?;
    let listing = DeadLetters::of(address, queue.clone()).list(args.limit).await?;
    let mut text = String::new();
    for letter in &listing.letters {
        if args.json {
            text.push_str(&letters::as_json(letter).to_string());
            text.push('\n');
        } else {
            text.push_str(&letters::in_words(letter));
        }
    }
    print(&status, &text);
    let count = listing.letters.len();
    let more = if listing.more > 0 { format!(", {} more behind them", listing.more) } else { String::new() };
    status.say(&format!("{count} dead letter{} of {queue}{more}", if count == 1 { "" } else { "s" }));
    Ok(Exit::Success)
}

/// Replays dead letters; the first signal ends it in good order.
pub(crate) async fn replay(args: Replay, address: Address) -> Result<Exit, Failed> {
    let status = Status::plain();
    let filter = ReplayFilter { id: args.id, reason: args.reason.map(Into::into), message_type: args.message_type };
    let stop = CancellationToken::new();
    let queue = args.source.queue(args.ordered)?;
    let letters = DeadLetters::of(address, queue.clone());
    let replaying = Box::pin(letters.replay(&filter, args.limit, &stop));
    let (done, cut_short) = match signals::stopping(replaying, &stop, &status).await {
        Some(Ok(done)) => (done, None),
        Some(Err(DeadLettersError::CutShort { done, cause })) => (*done, Some(cause)),
        Some(Err(other)) => return Err(other.into()),
        None => return Ok(Exit::Incomplete),
    };
    if args.json {
        print(&status, &format!("{}\n", letters::replayed_as_json(&done)));
    } else {
        print(&status, &letters::replayed_in_words(queue.as_str(), &done));
    }
    if filter.id.is_some() && done.replayed + done.kept_count == 0 && cut_short.is_none() {
        status.say(&format!("no dead letter of {queue} has this id: `consumer dead-letters list` shows them"));
        return Ok(Exit::Incomplete);
    }
    match cut_short {
        Some(cause) => Err(DeadLettersError::CutShort { done: Box::new(done), cause }.into()),
        None if done.kept_count > 0 => Ok(Exit::Incomplete),
        None => Ok(Exit::Success),
    }
}

fn print(status: &Status, text: &str) {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // `… | head` has seen what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => status.say(&format!("standard output: {error}")),
        _ => {}
    }
}
