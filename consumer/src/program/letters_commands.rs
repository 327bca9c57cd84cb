//! `consumer dead-letters list`, `show`, `export`, `replay` and `purge`.

use std::{
    future::Future,
    io::{self, Write as _},
    num::NonZeroU32,
    path::Path,
    time::SystemTime,
};

use correio_broker_config::{Address, cli::Exit};
use correio_message::ShortText;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letters::{
        DeadLetterGroups, DeadLetters, DeadLettersError, Forgotten, Letter, LettersFilter, LookEnd, Looked, Purged,
        ReplaySettings,
    },
    program::{
        failed::Failed,
        letters,
        letters_args::{DeadLettersCommand, Export, List, Purge, Replay, Show, Wanted, Whose},
        letters_file::{Existing, LettersFile},
        letters_whole, signals,
        status::Status,
    },
};

/// Does one of them; the first signal ends it in good order.
pub(crate) async fn command(what: DeadLettersCommand, address: Address) -> Result<Exit, Failed> {
    let status = Status::plain();
    let stop = CancellationToken::new();
    let work = async {
        let of = |whose: &Whose, wanted: &Wanted, limit: Option<NonZeroU32>| {
            let queue = whose.queue()?;
            let letters = DeadLetters::of(address.clone(), queue.clone());
            let filter = wanted.filter(SystemTime::now(), limit);
            Ok::<_, Failed>(Letters { letters, queue, filter, stop: &stop, status: &status })
        };
        match what {
            DeadLettersCommand::List(args) => of(&args.whose, &args.wanted, Some(args.limit()))?.list(&args).await,
            DeadLettersCommand::Show(args) => of(&args.whose, &args.wanted, Some(NonZeroU32::MIN))?.show(&args).await,
            DeadLettersCommand::Export(args) => of(&args.whose, &args.wanted, None)?.export(&args).await,
            DeadLettersCommand::Replay(args) => of(&args.whose, &args.wanted, None)?.replay(&args).await,
            DeadLettersCommand::Purge(args) => of(&args.whose, &args.wanted, None)?.purge(&args).await,
        }
    };
    let work: std::pin::Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(work);
    signals::stopping(work, &stop, &status).await.unwrap_or(Ok(Exit::Incomplete))
}

/// The letters that are meant.
struct Letters<'c> {
    letters: DeadLetters,
    queue: ShortText,
    filter: LettersFilter,
    stop: &'c CancellationToken,
    status: &'c Status,
}

impl Letters<'_> {
    /// Prints them, or what they have in common; how many, on stderr.
    async fn list(self, args: &List) -> Result<Exit, Failed> {
        let mut groups = DeadLetterGroups::default();
        let mut text = String::new();
        let looked = self
            .each(async |letter| {
                match (args.is_of_letters(), args.json) {
                    (false, _) => groups.add(&letter.summary),
                    (true, true) => text.push_str(&format!("{}\n", letters::as_json(&letter.summary))),
                    (true, false) => text.push_str(&letters::in_words(&letter.summary)),
                }
                Ok(())
            })
            .await?;
        let ungrouped = groups.ungrouped();
        for group in groups.largest_first() {
            match args.json {
                true => text.push_str(&format!("{}\n", letters::group_as_json(&group))),
                false => text.push_str(&letters::group_in_words(&group)),
            }
        }
        // When the letters are back: a pager may not read on for long.
        self.print(text).await;
        if ungrouped > 0 {
            self.status.say(&format!("{ungrouped} of other types: there are over {} of them", DeadLetterGroups::MOST));
        }
        let more = if looked.more > 0 { format!(", {} more behind them", looked.more) } else { String::new() };
        self.status.say(&format!("{} of {}{more}", dead_letters(looked.wanted), self.queue));
        Ok(Exit::Success)
    }

    /// Prints one of them, whole.
    async fn show(self, args: &Show) -> Result<Exit, Failed> {
        let mut text = String::new();
        let looked = self
            .each(async |letter| {
                match args.json {
                    true => text.push_str(&format!("{}\n", letters_whole::as_json(&letter))),
                    false => text.push_str(&letters_whole::in_words(&letter)),
                }
                Ok(())
            })
            .await?;
        self.print(text).await;
        if looked.wanted == 0 {
            self.say_that_there_is_none();
            return Ok(Exit::Incomplete);
        }
        Ok(Exit::Success)
    }

    /// Writes them to a file, which has its name when it is whole; how many, on stderr, when they are on the disk.
    async fn export(self, args: &Export) -> Result<Exit, Failed> {
        let existing = if args.force { Existing::Replace } else { Existing::Refuse };
        let mut file = opened(&args.file, existing)?;
        let mut written = 0_u32;
        let looked = self
            .each(async |letter| {
                file.write(&letter).await?;
                written += 1;
                Ok(())
            })
            .await
            .map_err(|failed| failed.with(&not_exported(&file, &args.file)))?;
        file.finish().await.map_err(|error| not_complete(&name(&args.file), &error))?;
        let early = match looked.ended {
            LookEnd::AllSeen | LookEnd::AtLimit => "",
            _ => ", ended before all were seen",
        };
        self.status.say(&format!(
            "exported {} of {} to {}{early}",
            dead_letters(written),
            self.queue,
            name(&args.file)
        ));
        if looked.wanted == 0 && self.filter.id.is_some() {
            self.say_that_there_is_none();
            return Ok(Exit::Incomplete);
        }
        Ok(if early.is_empty() { Exit::Success } else { Exit::Incomplete })
    }

    async fn replay(self, args: &Replay) -> Result<Exit, Failed> {
        let forgotten = if args.force { Forgotten::Replay } else { Forgotten::Keep };
        let settings = ReplaySettings { per_second: args.rate, forgotten };
        if args.dry_run {
            let plan = self.letters.plan_replay(&self.filter, &settings, self.stop).await?;
            self.print(match args.json {
                true => format!("{}\n", letters::plan_as_json(&plan)),
                false => letters::plan_in_words(self.queue.as_str(), &plan),
            })
            .await;
            self.status.say("nothing was sent: this was a dry run");
            return Ok(if plan.kept_count > 0 { Exit::Incomplete } else { Exit::Success });
        }
        let (done, cut_short) = match self.letters.replay(&self.filter, &settings, self.stop).await {
            Ok(done) => (done, None),
            Err(DeadLettersError::CutShort { done, cause }) => (*done, Some(cause)),
            Err(other) => return Err(other.into()),
        };
        self.print(match args.json {
            true => format!("{}\n", letters::replayed_as_json(&done)),
            false => letters::replayed_in_words(self.queue.as_str(), &done),
        })
        .await;
        if self.filter.id.is_some() && done.replayed + done.kept_count == 0 && cut_short.is_none() {
            self.say_that_there_is_none();
            return Ok(Exit::Incomplete);
        }
        match cut_short {
            Some(cause) => Err(DeadLettersError::CutShort { done: Box::new(done), cause }.into()),
            None if done.kept_count > 0 || done.ended == LookEnd::HeldLong => Ok(Exit::Incomplete),
            None => Ok(Exit::Success),
        }
    }

    async fn purge(self, args: &Purge) -> Result<Exit, Failed> {
        if !args.yes {
            return self.would_purge(args).await;
        }
        let mut file = args.export.as_deref().map(archive).transpose()?;
        let mut purge = self.letters.purge(self.filter.clone(), self.stop.clone()).await?;
        let mut failed = None;
        while let Some(taken) = purge.take().await.map_err(|error| cut_short(purge.removed(), &error))? {
            if let Some(file) = &mut file
                && let Err(error) = keep(file, &taken).await
            {
                failed = Some(error);
                break;
            }
            purge.remove().await.map_err(|error| cut_short(purge.removed(), &error))?;
        }
        let told = purge.removed();
        let done = purge.end().await.map_err(|error| cut_short(told, &error))?;
        self.print(match args.json {
            true => format!("{}\n", purged_as_json(&done, false)),
            false => letters::purged_in_words(self.queue.as_str(), &done),
        })
        .await;
        if let Some(error) = failed {
            let file = args.export.as_deref().map(name).unwrap_or_default();
            return Err(Failed::midway(format!(
                "{file} cannot be written: {error}; what is not in it is still parked"
            )));
        }
        self.ended_purge(&done)
    }

    fn ended_purge(&self, done: &Purged) -> Result<Exit, Failed> {
        if self.filter.id.is_some() && done.removed == 0 {
            self.say_that_there_is_none();
            return Ok(Exit::Incomplete);
        }
        Ok(if done.ended == LookEnd::HeldLong { Exit::Incomplete } else { Exit::Success })
    }

    /// What would be removed: the letters stay.
    async fn would_purge(self, args: &Purge) -> Result<Exit, Failed> {
        let mut groups = DeadLetterGroups::default();
        let looked = self
            .each(async |letter| {
                groups.add(&letter.summary);
                Ok(())
            })
            .await?;
        let done = Purged { removed: looked.wanted, passed_over: looked.passed_over, ended: looked.ended };
        let mut words = format!("would have {}", letters::purged_in_words(self.queue.as_str(), &done));
        for group in groups.largest_first() {
            words.push_str(&letters::group_in_words(&group));
        }
        self.print(if args.json { format!("{}\n", purged_as_json(&done, true)) } else { words }).await;
        self.status.say("nothing was removed: with --yes it is, for good");
        self.ended_purge(&done)
    }

    /// Shows each to `show` and gives all of them back, also if that fails.
    async fn each(&self, mut show: impl AsyncFnMut(Letter) -> io::Result<()>) -> Result<Looked, Failed> {
        let mut look = self.letters.look(self.filter.clone(), self.stop.clone()).await?;
        let mut failed = None;
        while failed.is_none()
            && let Some(letter) = look.next().await?
        {
            failed = show(letter).await.err();
        }
        let looked = look.end().await?;
        match failed {
            Some(error) => Err(not_complete("the output", &error)),
            None => Ok(looked),
        }
    }

    fn say_that_there_is_none(&self) {
        let which = if self.filter.id.is_some() { "has this id" } else { "is wanted" };
        self.status
            .say(&format!("no dead letter of {} {which}: `consumer dead-letters list --each` shows them", self.queue));
    }

    /// Prints on a thread of its own: a pipe that nobody reads must not keep signals from being heard.
    async fn print(&self, text: String) {
        let printing = tokio::task::spawn_blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        });
        match printing.await {
            // `… | head` has seen what it wanted.
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.status.say(&format!("standard output: {error}"));
            }
            _ => {}
        }
    }
}

fn dead_letters(count: u32) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard output".to_owned() } else { path.display().to_string() }
}

fn opened(path: &Path, existing: Existing) -> Result<LettersFile, Failed> {
    LettersFile::open(path, existing).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failed::usage(format!("{} is there already: give another file, or --force to overwrite it", name(path)))
        }
        io::ErrorKind::ResourceBusy => Failed::usage(format!(
            "{} is being written to by another purge or export: wait for its end, or give another file",
            name(path)
        )),
        _ => Failed::output(path, &error),
    })
}

fn not_exported(file: &LettersFile, path: &Path) -> String {
    match file.keeps() {
        true => format!("; {} is left as it was", name(path)),
        false => format!("; {} is not complete", name(path)),
    }
}

/// Where letters are kept that are about to be removed.
fn archive(path: &Path) -> Result<LettersFile, Failed> {
    // Behind what is there: what an earlier purge removed stands in no other place.
    let file = (path != Path::new("-")).then(|| opened(path, Existing::Append)).transpose()?;
    file.filter(LettersFile::keeps).ok_or_else(|| {
        Failed::usage(format!(
            "{} keeps nothing: --export wants a file, as what it holds is removed from the queue",
            name(path)
        ))
    })
}

/// Comes back when each of them is on the disk.
async fn keep(file: &mut LettersFile, letters: &[Letter]) -> io::Result<()> {
    for letter in letters {
        file.write(letter).await?;
    }
    file.sync().await
}

fn purged_as_json(done: &Purged, dry_run: bool) -> serde_json::Value {
    let removed = if dry_run { "would_remove" } else { "removed" };
    json!({ removed: done.removed, "passed_over": done.passed_over, "ended_early": done.ended_early(), "dry_run": dry_run })
}

fn not_complete(what: &str, error: &io::Error) -> Failed {
    Failed::midway(format!("{what} is not complete: {error}; every letter is still parked"))
}

fn cut_short(removed: u32, error: &DeadLettersError) -> Failed {
    Failed::midway(format!(
        "the purge was cut short after {removed} letters: {error}; what it did not come to is still parked, and some of those may be"
    ))
}
