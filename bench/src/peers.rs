//! The peers that are programs of their own.

use tokio::process::Command;

use crate::{Error, Way, amqplib, rabbitmq_c};

/// Those that could be had.
#[derive(Debug, Default)]
pub struct Peers {
    rabbitmq_c: Option<rabbitmq_c::Programs>,
    amqplib: Option<amqplib::Program>,
}

impl Peers {
    /// Makes ready what these ways need, and takes those out that cannot be had, after saying why.
    pub async fn ready(ways: &mut Vec<Way>) -> Self {
        let mut peers = Self::default();
        if ways.iter().any(|way| rabbitmq_c::SOURCES.iter().any(|source| source.way == *way)) {
            match rabbitmq_c::Programs::build().await {
                Ok(programs) => peers.rabbitmq_c = Some(programs),
                Err(error) => println!("left out: {}: {error}", Way::RabbitmqC.name()),
            }
        }
        if ways.contains(&Way::ConsumeAmqplib) {
            match amqplib::Program::fetch().await {
                Ok(program) => peers.amqplib = Some(program),
                Err(error) => println!("left out: {}: {error}", Way::ConsumeAmqplib.name()),
            }
        }
        ways.retain(|way| !way.is_a_program_of_its_own() || peers.command(*way).is_ok());
        peers
    }

    /// The peer's program, about to be run.
    ///
    /// # Errors
    ///
    /// When it could not be had.
    pub fn command(&self, way: Way) -> Result<Command, Error> {
        let command = match way {
            Way::ConsumeAmqplib => self.amqplib.as_ref().map(amqplib::Program::command),
            _ => self.rabbitmq_c.as_ref().and_then(|programs| programs.command(way)),
        };
        command.ok_or_else(|| format!("{} is not there", way.name()).into())
    }
}
