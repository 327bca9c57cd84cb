//! Ordered: 1,000 real flights; those of one airport are to be handled in the order sent. Three acts, three guards.

mod overtaken;
mod two_connections;
mod unequal;

use serde::Deserialize;

use super::{
    Act, Half, LessonError,
    account::Account,
    command::{CommandLine, Input},
    evidence::Sent,
    stage::Stage,
};

pub(crate) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Half, LessonError> {
    let acts = vec![
        overtaken::run(stage, guarded).await?,
        unequal::run(stage, guarded).await?,
        two_connections::run(stage, guarded).await?,
    ];
    Ok(Half {
        lesson: "ordered",
        guarded,
        setting: if guarded { "--ordered" } else { "not ordered" },
        done: if guarded {
            "retry in place; single active consumer; resequencer"
        } else {
            "failures; 3 consumers; 2 connections"
        },
        acts,
    })
}

/// The queue of this half: a shared one, or one with a single active consumer.
fn queue(guarded: bool) -> &'static str {
    if guarded { "flights" } else { "orders" }
}

/// `cargo consumer run` on the queue of this half.
fn consumer(guarded: bool) -> CommandLine {
    // One at a time: what is out of order then comes of the fault, not of handling side by side.
    let run = CommandLine::consumer(&format!("run --from {} --concurrency 1", queue(guarded)));
    if guarded { run.and("--ordered") } else { run }
}

/// The flights of an act: their lines, to be handled by airport in their order.
fn flights(first: usize, last: usize) -> (Input, String, Account) {
    let input = Input::Flights { first, last };
    let lines = input.lines().unwrap_or_default();
    let mut account = Account::default();
    account.attempted_by_key(&lines, |line| Some(origin(line)));
    (input, lines, account)
}

/// Sends them with our own producer, keyed by the airport they leave from.
async fn send(stage: &Stage<'_>, guarded: bool, flights: (Input, String, Account)) -> Result<Account, LessonError> {
    let (input, lines, mut account) = flights;
    let unsent = format!("unsent-{}.ndjson", account.figures().sent);
    let send =
        CommandLine::producer(&format!("send --to {} --key-field origin --json --unsent {unsent}", queue(guarded)));
    let send = send.reading(input);
    stage.command(&send);
    let ended = stage.run(&send, &[0]).await?;
    account.sent(&Sent::read(&lines, &ended, &stage.path(unsent))?);
    Ok(account)
}

fn act(stage: &Stage<'_>, name: &'static str, guard: Option<&str>, account: &Account) -> Act {
    let figures = account.figures();
    let by = guard.map(|guard| format!(", by {guard}")).unwrap_or_default();
    stage.result(format!("{name}: {} handled, {} out of order{by}", figures.handled, figures.out_of_order));
    Act { name, figures }
}

/// The airport that a flight leaves from.
fn origin(line: &str) -> String {
    #[derive(Deserialize)]
    struct Flight {
        origin: String,
    }
    serde_json::from_str(line).map(|flight: Flight| flight.origin).unwrap_or_default()
}
