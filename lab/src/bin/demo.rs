//! The program `demo`.

use clap::{Parser, Subcommand};
use correio_lab::{
    broker::{BrokerArgs, LabError, run_in_foreground},
    lessons::{self, DemoArgs, LessonError, Ran},
};
use std::process::ExitCode;

/// Lessons on what can happen to messages on their way, on a private RabbitMQ node.
///
/// Five run twice, without and with a guarantee, by the programs `producer` and `consumer`, under a real fault; at the end stands
/// a table of what was lost, doubled, overtaken and parked. Two compare: who gets a message, and asking with sending.
#[derive(Parser)]
#[command(name = "demo", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
struct Demo {
    #[command(subcommand)]
    what: Option<What>,

    #[command(flatten)]
    lessons: DemoArgs,
}

#[derive(Subcommand)]
enum What {
    /// Run a private RabbitMQ node in the foreground, with the project's queues and users, until Ctrl-C
    Broker(BrokerArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let demo = Demo::parse();
    match demo.what {
        Some(What::Broker(arguments)) => match run_in_foreground(&arguments, &mut std::io::stdout()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => no_broker(&error),
        },
        None => match lessons::run(demo.lessons).await {
            Ok(Ran::AsPromised) => ExitCode::SUCCESS,
            Ok(Ran::Broken | Ran::Stopped) => ExitCode::FAILURE,
            Err(LessonError::NoBroker(error)) => no_broker(&error),
            Err(error) => {
                eprintln!("demo: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn no_broker(error: &LabError) -> ExitCode {
    eprintln!("demo: {error}");
    ExitCode::from(NO_BROKER)
}

const NO_BROKER: u8 = 3;
const EXIT_CODES: &str = "\
Exit codes: 0 all well, 1 a lesson did not show what it should, broke off or was stopped, 2 wrong usage, 3 no broker";
