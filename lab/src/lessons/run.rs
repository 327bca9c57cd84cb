//! The run: a node, the lessons on it one after another, the table.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::{
    Broken, Choices, DemoArgs, Half, Kind, Lesson, LessonError, Programs, judge, lesson::Part, show::Show,
    stage::Stage, table,
};
use crate::broker::{Login, Node, NodeOptions};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Every half showed what it is there to show.
    AsPromised,
    /// One did not; the output says which.
    Broken,
    /// Somebody stopped it.
    Stopped,
}

/// Runs the lessons on a private node and prints what they show. Neither the node nor a program is left behind.
///
/// # Errors
///
/// [`LessonError`] when a lesson could not be held: no broker to be had, a program not built, a condition that did not
/// come about.
///
/// # Cancel safety
///
/// Cancel safe: the node and all programs are ended.
pub async fn run(args: DemoArgs) -> Result<Ran, LessonError> {
    let show = Show::new(args.json, args.watch);
    let mut stop = Stop::listen();
    let prepared = async {
        let programs = Programs::ready().await?;
        let options =
            NodeOptions { with_project_files: true, dashboard: true, usual_port: args.stay, ..NodeOptions::default() };
        let node = Node::start(options).await.map_err(LessonError::NoBroker)?;
        Ok::<_, LessonError>((programs, node))
    };
    let (programs, node) = tokio::select! {
        prepared = prepared => prepared?,
        () = stop.asked() => return Ok(Ran::Stopped),
    };
    // On the heap: it is the whole course.
    let lessons = Box::pin(hold_lessons(&args, &node, &programs, &show));
    let mut ran = tokio::select! {
        ran = lessons => ran,
        () = stop.asked() => {
            show.line("\nStopped: the node and the programs are ended.");
            Ok(Ran::Stopped)
        }
    };
    if args.stay && !matches!(ran, Ok(Ran::Stopped)) {
        if let Err(error) = &ran {
            show.line(format!("{error}"));
        }
        show.line(format!("The node stays until Ctrl-C: {}", whereabouts(&node)));
        stop.asked().await;
    }
    let closed = node.close().await;
    if ran.is_ok()
        && let Err(error) = closed
    {
        ran = Err(error.into());
    }
    ran
}

async fn hold_lessons(args: &DemoArgs, node: &Node, programs: &Programs, show: &Show) -> Result<Ran, LessonError> {
    // Short enough to be typed.
    let seed = args.seed.unwrap_or_else(|| Uuid::now_v7().as_u128() as u64 % 1_000_000);
    let lessons = if args.lessons.is_empty() { Lesson::ALL.to_vec() } else { args.lessons.clone() };
    let started = Instant::now();
    show.line(format!("RabbitMQ {}, seed {seed}. A private node: {}", node.version(), whereabouts(node)));
    show.line("Repeat a line after `cargo demo broker` or `docker compose up -d`; with AMQP_URL it went through a proxy of this run.");
    let (mut halves, mut broken) = (Vec::new(), Vec::new());
    for (number, lesson) in lessons.iter().enumerate() {
        show.line(format!("\n{}. {}", number + 1, lesson.name().to_uppercase()));
        lesson.story().iter().for_each(|sentence| show.line(format!("   {sentence}")));
        let parts: &[bool] = if lesson.kind() == Kind::Comparison { &[true] } else { &[false, true] };
        for &guarded in parts {
            match (parts.len(), guarded) {
                (1, _) => {}
                (_, true) => show.line("   With the guarantee:"),
                (_, false) => show.line("   Without:"),
            }
            let choices = Choices::new(seed, lesson.name());
            let stage = Stage::new(node, programs, show, choices, guarded, number + 1)?;
            let wrong = match (lesson.part(&stage, guarded).await?, lesson.kind()) {
                (Part::Half(half), Kind::Halves(damage)) => {
                    let wrong = judge(&half, damage);
                    show.object(&object(&half, &wrong));
                    halves.push(half);
                    wrong
                }
                (Part::Half(_), Kind::Comparison) => unreachable!("a lesson that compares has no halves"),
                (Part::Comparison(compared), _) => {
                    show.line("");
                    compared.in_columns().lines().for_each(|line| show.line(format!("     {line}")));
                    show.object(&json!({ "compared": compared, "not_as_promised": said(&compared.wrong) }));
                    compared.wrong
                }
            };
            wrong.iter().for_each(|wrong| show.line(format!("     NOT AS PROMISED: {wrong}")));
            broken.extend(wrong);
        }
    }
    let took = started.elapsed();
    if !halves.is_empty() {
        show.line(format!("\n{}", table(&halves)));
    }
    show.object(&summary(node, seed, took, &halves, &broken));
    show.line(verdict(&lessons, &broken, took));
    Ok(if broken.is_empty() { Ran::AsPromised } else { Ran::Broken })
}

fn object(half: &Half, wrong: &[Broken]) -> serde_json::Value {
    json!({ "half": half, "figures": half.figures(), "not_as_promised": said(wrong) })
}

fn summary(node: &Node, seed: u64, took: Duration, halves: &[Half], broken: &[Broken]) -> serde_json::Value {
    let rows: Vec<_> = halves
        .iter()
        .map(|half| {
            json!({
                "lesson": half.lesson, "half": half.setting, "guarded": half.guarded, "figures": half.figures(),
                "done": half.done,
            })
        })
        .collect();
    json!({
        "broker": node.version(), "seed": seed, "seconds": took.as_secs_f64(), "table": rows,
        "not_as_promised": said(broken),
    })
}

fn said(broken: &[Broken]) -> Vec<String> {
    broken.iter().map(ToString::to_string).collect()
}

fn verdict(lessons: &[Lesson], broken: &[Broken], took: Duration) -> String {
    let took = took.as_secs();
    if broken.is_empty() {
        let compares = |lesson: &Lesson| lesson.kind() == Kind::Comparison;
        let mut said = String::new();
        if !lessons.iter().all(compares) {
            said.push_str("Each fault did its damage, and with the guarantee none. ");
        }
        if lessons.iter().any(compares) {
            said.push_str("Who was to get a message got it. ");
        }
        return format!("{said}{took} s.");
    }
    let mut text = format!("NOT AS PROMISED, {} time(s), after {took} s:", broken.len());
    for broken in broken {
        text.push_str(&format!("\n  {broken}"));
    }
    text
}

fn whereabouts(node: &Node) -> String {
    let student = Login::Student.name();
    let dashboard = node
        .management_url()
        .map(|url| format!("; dashboard {url} (login {student}, password {})", node.password(Login::Student)))
        .unwrap_or_default();
    format!("AMQP_URL=amqp://{}{dashboard}", node.amqp_address())
}

/// Ctrl-C, the SIGTERM of whoever runs us, or the end of the terminal.
struct Stop(Vec<Signal>);

impl Stop {
    /// Heard from now on, also while nobody asks.
    fn listen() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        // Where there are no handlers to be had, the watchdog clears up after us.
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn asked(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        futures_util::future::select_all(self.0.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}
