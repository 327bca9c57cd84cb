//! The program `consumer`: parse, build, run, and say how it went by an exit code.

mod args;
mod dedup;
mod exec;
mod failed;
mod handlers;
mod letters;
mod letters_args;
mod letters_commands;
mod letters_file;
mod letters_whole;
mod line;
mod observed;
mod output;
mod prices;
mod probes;
mod run;
mod signals;
mod status;
mod time;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use correio_broker_config::{
    Role,
    cli::{Exit, init_logging},
};

use crate::program::{
    args::{Cli, Command},
    failed::Failed,
    status::Status,
};

/// Runs the program and tells its exit code: 0 all well, 1 some messages did not make it, 2 wrong usage, 3 no broker.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    init_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Status::plain().say(&format!("error: no threads to run on: {error}"));
            return Exit::Incomplete.into();
        }
    };
    let exit = runtime.block_on(command(cli));
    // What is still there has been given up: an output that nobody reads must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit.into()
}

async fn command(cli: Cli) -> Exit {
    dispatch(cli).await.unwrap_or_else(|failed| {
        Status::plain().say(&format!("error: {failed}"));
        failed.exit()
    })
}

async fn dispatch(cli: Cli) -> Result<Exit, Failed> {
    let address = cli.broker.address(Role::Consumer)?;
    match cli.command {
        Command::Run(args) => run::run(*args, address).await,
        Command::DeadLetters { what } => letters_commands::command(*what, address).await,
    }
}
