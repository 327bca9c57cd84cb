//! The program `producer`: thin over the library.

mod args;
mod firing;
mod input;
mod latency;
mod lines;
mod manner;
mod report;
mod requesting;
mod sending;
mod target;
mod template;
mod unsent;

use clap::Parser;
use correio_broker_config::{
    Role,
    cli::{BrokerArgs, Exit, init_logging, print_error},
};
use correio_message::ShortText;

use self::{
    args::{Cli, Command, LineArgs},
    lines::Shape,
    target::Target,
};
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
            Command::Request(args) => requesting::run(args).await,
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

/// What each line becomes.
fn shape(args: &LineArgs, target: Target) -> Result<Shape, Stop> {
    Ok(Shape {
        target,
        message_type: args.message_type.as_ref().map(ShortText::new).transpose().map_err(Stop::usage)?,
        key_field: args.key_field.clone(),
        id_field: args.id_field.clone(),
    })
}

async fn connect(
    broker: &BrokerArgs,
    origin: &str,
    adjust: impl FnOnce(ProducerSettings) -> ProducerSettings,
) -> Result<Producer, Stop> {
    let address = broker.address(Role::Producer).map_err(Stop::usage)?;
    let settings = ProducerSettings::new(address, origin).map_err(Stop::usage)?;
    // Someone waits at a terminal: a broker that is not there is said soon.
    let settings = adjust(settings.connect_deadline(std::time::Duration::from_secs(5)));
    Producer::connect(settings).await.map_err(Stop::NoBroker)
}
