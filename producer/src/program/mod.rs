//! The program `producer`: thin over the library.

mod args;
mod firing;
mod input;
mod lines;
mod report;
mod sending;
mod unsent;

use clap::Parser;
use correio_broker_config::{
    Role,
    cli::{Exit, init_logging, print_error},
};
use correio_message::{Destination, Route, ShortText, TooLong};

use self::args::{Cli, Command, LineArgs};
use crate::{ConnectError, Producer, ProducerSettings};

/// Runs the program and says how it ended.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    init_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&error);
            return Exit::Incomplete.into();
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Send(args) => sending::run(args).await,
            Command::Fire(args) => firing::run(args).await,
        }
    });
    // A read of standard input may still be pending in a thread of its own.
    runtime.shutdown_background();
    result.unwrap_or_else(|stop| stop.report()).into()
}

/// Why the program stops before its end.
#[derive(Debug)]
enum Stop {
    Usage(Box<dyn std::error::Error + Send + Sync>),
    NoBroker(ConnectError),
}

impl Stop {
    fn usage(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    fn report(self) -> Exit {
        match self {
            Self::Usage(error) => {
                print_error(&*error);
                Exit::Usage
            }
            Self::NoBroker(error) => {
                print_error(&error);
                Exit::NoBroker
            }
        }
    }
}

/// Where the lines go.
fn destination(args: &LineArgs) -> Result<Destination, TooLong> {
    match (&args.to, &args.exchange, &args.routing_key) {
        (Some(queue), _, _) => Destination::queue(queue),
        (None, exchange, routing_key) => Ok(Destination::Route(Route {
            exchange: ShortText::new(exchange.as_deref().unwrap_or_default())?,
            routing_key: ShortText::new(routing_key.as_deref().unwrap_or_default())?,
        })),
    }
}

async fn connect(args: &LineArgs, adjust: impl FnOnce(ProducerSettings) -> ProducerSettings) -> Result<Producer, Stop> {
    let address = args.broker.address(Role::Producer).map_err(Stop::usage)?;
    let settings = ProducerSettings::new(address, &args.origin).map_err(Stop::usage)?;
    // Someone waits at a terminal: a broker that is not there is said soon.
    let settings = adjust(settings.connect_deadline(std::time::Duration::from_secs(5)));
    Producer::connect(settings).await.map_err(Stop::NoBroker)
}
