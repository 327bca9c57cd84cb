//! Retried: some messages fail once, one fails always.

use super::{
    Act, Half, LessonError,
    account::Account,
    command::{CommandLine, Input},
    evidence::{Dead, Sent},
    seed::Choices,
    stage::Stage,
};

/// Messages that no number of retries helps.
pub(crate) const HOPELESS: u64 = 1;

pub(crate) async fn run(stage: &Stage<'_>, guarded: bool) -> Result<Half, LessonError> {
    let mut account = Account::default();
    let send = CommandLine::producer("send --to orders --json --unsent unsent.ndjson").and(stage.pace());
    let send = send.reading(Input::Seq { first: 1, last: SENT });
    let lines = send.input.lines().unwrap_or_default();
    account.attempted(&lines);
    stage.shared_command(&send);
    let ended = stage.run(&send, &[0]).await?;
    account.sent(&Sent::read(&lines, &ended, &stage.path("unsent.ndjson"))?);

    stage.show.look(if guarded {
        "Queues: orders.retry.1s 11, then .2s, .4s, .8s, .16s one each; at the end orders.dead, Ready 1"
    } else {
        "Queues, orders.dead: Ready 11"
    });
    let run = CommandLine::consumer("run --from orders").and(setting(guarded)).and("--idle 2").exec(&worker(stage));
    stage.command(&run);
    // 1: some are dead letters, which is the lesson.
    stage.run(&run, &[1]).await?;
    account.handled(&stage.written("handled")?);
    account.handled(&stage.drain("orders").await?);

    let list = CommandLine::consumer("dead-letters list --from orders");
    account.dead(&Dead::read(&stage.run(&list.clone().and("--json"), &[0]).await?)?);
    let figures = account.figures();
    stage.result(format!("handled {}, dead letters {}", figures.handled, figures.dead));
    if guarded {
        show_dead(stage, &list.and("--each")).await?;
    }
    stage.show.hold().await;
    stage.node.purge("orders.dead").await?;
    Ok(Half {
        lesson: "retried",
        guarded,
        setting: setting(guarded),
        done: if guarded { "tried again after 1, 2, 4, 8, 16 s" } else { "10 failed once, 1 always" },
        acts: vec![Act { name: "handlers fail", figures }],
    })
}

fn setting(guarded: bool) -> &'static str {
    if guarded { "--retries 5" } else { "--retries 0" }
}

/// A handler that fails always for one number, and once for the ten that end in some digit, by a mark for each.
fn worker(stage: &Stage<'_>) -> String {
    let (always, digit) = chosen(&mut stage.choices());
    format!(
        "read n; case $n in {always}) echo not for sale >&2; exit 1;; *{digit}) mkdir tried-$n 2>/dev/null && exit 1;; esac; \
         echo $n >> handled"
    )
}

/// The number that fails always, and the digit on which those end that fail once: not its own.
fn chosen(choices: &mut Choices) -> (u64, u64) {
    let always = choices.number(SENT);
    (always, (always + choices.number(9)) % 10)
}

/// What is parked can be looked at, and sent again.
async fn show_dead(stage: &Stage<'_>, list: &CommandLine) -> Result<(), LessonError> {
    let listed = stage.run(list, &[0]).await?;
    stage.show.line(format!("     What is parked: {list}"));
    for line in listed.stdout.lines() {
        stage.show.line(format!("       {line}"));
    }
    stage.show.line("     And again, when the cause is gone: cargo consumer dead-letters replay --from orders");
    Ok(())
}

const SENT: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_numbers_fail_once_and_another_one_always_whatever_the_seed() {
        for seed in 0..1_000 {
            let (always, digit) = chosen(&mut Choices::new(seed, "retried"));
            assert!((1..=SENT).contains(&always));
            assert_eq!((1..=SENT).filter(|n| n % 10 == digit && *n != always).count(), 10, "{always} {digit}");
        }
    }
}
