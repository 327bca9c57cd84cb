//! Addressing: five consumers, and four ways of saying who is to have a message. Then an address without anyone.

use std::collections::BTreeMap;

use correio_message::{TopicKey, TopicPattern};
use serde::Deserialize;

use super::{
    Comparison, LessonError,
    command::{CommandLine, Input},
    running::Running,
    stage::Stage,
};

pub(crate) async fn run(stage: &Stage<'_>) -> Result<Comparison, LessonError> {
    let mut heading = vec!["mode", "sent"];
    heading.extend(NAMES);
    heading.push("what it means");
    let mut shown = Comparison::new("addressing", &heading);
    anycast(stage, &mut shown).await?;
    unicast(stage, &mut shown).await?;
    multicast(stage, &mut shown).await?;
    broadcast(stage, &mut shown).await?;
    nobody(stage, &mut shown).await?;
    Ok(shown)
}

async fn anycast(stage: &Stage<'_>, shown: &mut Comparison) -> Result<(), LessonError> {
    let consumers = five(stage, |_| "run --from orders --concurrency 1".to_owned())?;
    all_listen(stage, &[("orders", 5)]).await?;
    let send = CommandLine::producer("send --to orders").reading(Input::Seq { first: 1, last: MANY });
    let lines = sent(stage, &send, "Queues, orders: Consumers 5").await?;
    let got = got(stage, consumers, |got| got.values().map(Vec::len).sum::<usize>() >= lines.len()).await?;
    let mut all: Vec<_> = got.values().flatten().cloned().collect();
    shown.holds("anycast", same(&mut all, &lines), || format!("{} effects of {} messages", all.len(), lines.len()));
    row(shown, "anycast", lines.len(), &got, "each message to any one of them");
    Ok(())
}

async fn unicast(stage: &Stage<'_>, shown: &mut Comparison) -> Result<(), LessonError> {
    let consumers = five(stage, |name| format!("run --mailbox {name}"))?;
    let queues = NAMES.map(|name| format!("correio.mailbox.{name}"));
    all_listen(stage, &queues.each_ref().map(|queue| (queue.as_str(), 1))).await?;
    let send = CommandLine::producer("send --mailbox cleo").reading(Input::Seq { first: 1, last: FEW });
    let lines = sent(stage, &send, "Queues: correio.mailbox.cleo alone has a Deliver rate").await?;
    let mut got = got(stage, consumers, |got| got["cleo"].len() >= lines.len()).await?;
    let others: usize = got.iter().filter(|(name, _)| **name != "cleo").map(|(_, lines)| lines.len()).sum();
    let of_cleo = got.get_mut("cleo").is_some_and(|of_cleo| same(of_cleo, &lines));
    shown.holds("unicast", of_cleo && others == 0, || format!("cleo did not get hers, or {others} went to others"));
    row(shown, "unicast", lines.len(), &got, "all to cleo's mailbox");
    Ok(())
}

async fn multicast(stage: &Stage<'_>, shown: &mut Comparison) -> Result<(), LessonError> {
    let group = |name: &str| GROUPS[GROUP_OF[NAMES.iter().position(|n| *n == name).unwrap_or_default()]];
    let consumers = five(stage, |name| {
        let (group, pattern) = group(name);
        format!("run --topic {pattern} --group {group} --concurrency 1")
    })?;
    let members = |group: usize| GROUP_OF.iter().filter(|of| **of == group).count() as u64;
    let queues: Vec<_> = GROUPS.iter().map(|(group, pattern)| format!("correio.group.{group}.[{pattern}]")).collect();
    let listening: Vec<_> = queues.iter().enumerate().map(|(n, queue)| (queue.as_str(), members(n))).collect();
    all_listen(stage, &listening).await?;
    let send = CommandLine::producer("send --topic-template flight.{origin}.{destination}");
    let send = send.reading(Input::Flights { first: 1, last: FLIGHTS });
    let lines =
        sent(stage, &send, "Queues: correio.group.west…, .texas… and .all… each have a rate of their own").await?;
    let expected: Vec<Vec<String>> =
        GROUPS.iter().map(|(_, pattern)| lines.iter().filter(|line| wants(pattern, line)).cloned().collect()).collect();
    let of_group = |got: &Got, n: usize| -> Vec<String> {
        let members = NAMES.iter().zip(GROUP_OF).filter(|(_, of)| *of == n).map(|(name, _)| name);
        members.flat_map(|name| got[name].clone()).collect()
    };
    let enough = |got: &Got| (0..GROUPS.len()).all(|n| of_group(got, n).len() >= expected[n].len());
    let got = got(stage, consumers, enough).await?;
    for (n, (name, pattern)) in GROUPS.iter().enumerate() {
        let mut theirs = of_group(&got, n);
        shown.holds("multicast", same(&mut theirs, &expected[n]), || {
            format!("group {name} of {pattern} got {} and {} are its own", theirs.len(), expected[n].len())
        });
    }
    row(shown, "multicast", lines.len(), &got, "each to every group that wants it");
    let said: Vec<_> = GROUPS
        .iter()
        .zip(&expected)
        .enumerate()
        .map(|(n, ((group, pattern), expected))| {
            let members: Vec<_> =
                NAMES.iter().zip(GROUP_OF).filter(|(_, of)| *of == n).map(|(name, _)| *name).collect();
            format!("{group} ({}) of {pattern}: {}", members.join(", "), expected.len())
        })
        .collect();
    stage.result(said.join("; "));
    Ok(())
}

async fn broadcast(stage: &Stage<'_>, shown: &mut Comparison) -> Result<(), LessonError> {
    let consumers = five(stage, |name| format!("run --broadcast --name {name}"))?;
    let queues = NAMES.map(|name| format!("correio.broadcast.{name}"));
    all_listen(stage, &queues.each_ref().map(|queue| (queue.as_str(), 1))).await?;
    let send = CommandLine::producer("send --broadcast").reading(Input::Seq { first: 1, last: FEW });
    let lines =
        sent(stage, &send, "Exchanges, correio.broadcast: five bindings, and five messages out for each one in")
            .await?;
    let mut got = got(stage, consumers, |got| got.values().all(|theirs| theirs.len() >= lines.len())).await?;
    for (name, theirs) in &mut got {
        shown.holds("broadcast", same(theirs, &lines), || format!("{name} got {} of {}", theirs.len(), lines.len()));
    }
    row(shown, "broadcast", lines.len(), &got, "each to each of them");
    Ok(())
}

/// Where nobody lives, `send` says so at once. Events are sent whether somebody wants them or not.
async fn nobody(stage: &Stage<'_>, shown: &mut Comparison) -> Result<(), LessonError> {
    let cases = [
        ("--to nowhere", 1, "anycast"),
        ("--mailbox nobody", 1, "unicast"),
        ("--topic news.sport", 0, "multicast"),
        ("--topic news.sport --require-subscriber", 1, "multicast"),
    ];
    for (to, code, mode) in cases {
        let send = CommandLine::producer(&format!("send {to} --json")).reading(Input::Seq { first: 1, last: FEW });
        stage.command(&send);
        let ended = stage.run(&send, &[0, 1]).await?;
        let said: Said = serde_json::from_str(ended.stdout.trim()).map_err(|error| LessonError::Unreadable {
            what: "the producer's summary".to_owned(),
            why: format!("{error}: {}", ended.stdout.trim()),
        })?;
        let exit = ended.code();
        stage.result(format!(
            "exit status {exit}: confirmed {}, unroutable {}, without a subscriber {}",
            said.confirmed, said.unroutable, said.without_subscriber
        ));
        let told = if code == 1 { said.unroutable } else { said.without_subscriber };
        shown.holds(mode, exit == code && told == FEW && said.confirmed == 0, || {
            format!("{to}: {told} of {FEW} said to be on no queue, exit status {exit}")
        });
    }
    Ok(())
}

#[derive(Deserialize)]
struct Said {
    confirmed: u64,
    unroutable: u64,
    without_subscriber: u64,
}

/// What each of the five wrote, by name.
type Got = BTreeMap<&'static str, Vec<String>>;

/// Starts the five; their command lines are shown once, with a name to fill in where they differ by that alone.
fn five(stage: &Stage<'_>, words: impl Fn(&str) -> String) -> Result<Vec<Running>, LessonError> {
    let lines = NAMES.map(|name| CommandLine::consumer(&words(name)).and("--output").and(&file(stage, name)));
    let mut shown: Vec<String> = Vec::new();
    for (line, name) in lines.iter().zip(NAMES) {
        let general = line.to_string().replace(&file(stage, name), "NAME.txt").replace(&format!(" {name} "), " NAME ");
        if !shown.contains(&general) {
            stage.show.line(format!("     {general}"));
            shown.push(general);
        }
    }
    lines.iter().map(|line| stage.start(line)).collect()
}

/// A file of its own for each consumer of each mode.
fn file(stage: &Stage<'_>, name: &str) -> String {
    format!("{}-{name}.txt", stage.act())
}

/// Waits until so many consumers are subscribed to each queue.
async fn all_listen(stage: &Stage<'_>, queues: &[(&str, u64)]) -> Result<(), LessonError> {
    for (queue, consumers) in queues {
        let what = format!("{consumers} consumers of {queue}");
        // Not there yet is none.
        stage.until(&what, async || Ok(stage.node.queue_consumers(queue).await.unwrap_or(0) >= *consumers)).await?;
    }
    Ok(())
}

/// Sends, and gives the lines that were sent.
async fn sent(stage: &Stage<'_>, send: &CommandLine, look: &str) -> Result<Vec<String>, LessonError> {
    stage.command(send);
    stage.show.look(look);
    stage.run(send, &[0]).await?;
    Ok(send.input.lines().unwrap_or_default().lines().map(str::to_owned).collect())
}

/// Waits until enough has arrived, stops the five in good order, and reads what each has: nobody else may have got any.
async fn got(stage: &Stage<'_>, consumers: Vec<Running>, enough: impl Fn(&Got) -> bool) -> Result<Got, LessonError> {
    let read = || -> Result<Got, LessonError> {
        NAMES.iter().map(|name| Ok((*name, stage.lines(&file(stage, name))?))).collect()
    };
    stage.until("everything that was sent", async || Ok(enough(&read()?))).await?;
    stage.show.hold().await;
    consumers.iter().for_each(Running::stop);
    for consumer in consumers {
        consumer.end(ENDS).await?.with(&[0])?;
    }
    let got = read()?;
    stage.next_act();
    let said: Vec<_> = NAMES.iter().map(|name| format!("{name} {}", got[name].len())).collect();
    stage.result(said.join(", "));
    Ok(got)
}

fn row(shown: &mut Comparison, mode: &str, sent: usize, got: &Got, meaning: &str) {
    let mut cells = vec![mode.to_owned(), sent.to_string()];
    cells.extend(NAMES.iter().map(|name| got[name].len().to_string()));
    cells.push(meaning.to_owned());
    shown.rows.push(cells);
}

fn same(got: &mut [String], sent: &[String]) -> bool {
    let mut sent = sent.to_vec();
    sent.sort_unstable();
    got.sort_unstable();
    *got == *sent
}

/// Whether a group of this pattern wants this flight.
fn wants(pattern: &str, line: &str) -> bool {
    #[derive(Deserialize)]
    struct Flight {
        origin: String,
        destination: String,
    }
    let Ok(Flight { origin, destination }) = serde_json::from_str(line) else { return false };
    match (TopicPattern::new(pattern), TopicKey::new(format!("flight.{origin}.{destination}"))) {
        (Ok(pattern), Ok(key)) => pattern.matches(&key),
        _ => false,
    }
}

const NAMES: [&str; 5] = ["ana", "ben", "cleo", "dina", "emil"];
const GROUPS: [(&str, &str); 3] = [("west", "flight.*.LAX"), ("texas", "flight.DFW.*"), ("all", "flight.#")];
/// Which group each of the five is in.
const GROUP_OF: [usize; 5] = [0, 0, 1, 2, 2];
const MANY: u64 = 100;
const FEW: u64 = 10;
const FLIGHTS: usize = 400;
const ENDS: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_flights_of_its_own_among_those_that_are_sent_and_none_has_just_those_of_another() {
        let lines = Input::Flights { first: 1, last: FLIGHTS }.lines().unwrap();
        let counts: Vec<_> =
            GROUPS.iter().map(|(_, pattern)| lines.lines().filter(|line| wants(pattern, line)).count()).collect();
        assert!(counts[0] > 0 && counts[1] > 0 && counts[0] != counts[1], "{counts:?}");
        assert_eq!(counts[2], FLIGHTS);
    }
}
