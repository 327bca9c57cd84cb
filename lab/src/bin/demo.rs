//! The program `demo`.

use clap::{Parser, Subcommand};
use correio_lab::broker::{BrokerArgs, run_in_foreground};
use std::process::ExitCode;

/// A broker of your own, and what can happen to messages on their way through it.
#[derive(Parser)]
#[command(name = "demo", version, after_help = EXIT_CODES)]
struct Demo {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run a private RabbitMQ node in the foreground, with the project's queues and users, until Ctrl-C
    Broker(BrokerArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Demo::parse().what {
        What::Broker(arguments) => match run_in_foreground(&arguments, &mut std::io::stdout()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("demo: {error}");
                ExitCode::from(NO_BROKER)
            }
        },
    }
}

const NO_BROKER: u8 = 3;
const EXIT_CODES: &str = "Exit codes: 0 all well, 2 wrong usage, 3 no broker";
