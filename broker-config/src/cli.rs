//! What the programs have in common: arguments, exit codes, how an error and the log are printed.

use std::{
    error::Error,
    fmt,
    io::{IsTerminal as _, Write as _},
};

use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{address::Address, address_error::AddressError, address_source::Role};

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: all well.
    Success,
    /// 1: it ran, and not all is well; its output says what.
    Incomplete,
    /// 2: it was called wrongly.
    Usage,
    /// 3: no broker there, or none that lets us in.
    NoBroker,
}

/// Which broker, on every command line.
#[derive(Clone, clap::Args)]
pub struct BrokerArgs {
    /// The broker, as `amqp://USER:PASSWORD@HOST:PORT/VHOST`; port and virtual host may be left out, more hosts may follow
    /// after commas, and `amqps://` is with TLS.
    ///
    /// The parameters of amqps:// are cacertfile, certfile, keyfile and server_name_indication (`?cacertfile=ca.pem&…`).
    /// Without it, the environment variable AMQP_URL; without both, localhost under the program's own user, as in
    /// docker-compose.yml. A password is better not on a command line, where others can read it: leave it out of
    /// the URL and put its file's name into AMQP_PASSWORD_FILE, or itself into AMQP_PASSWORD.
    #[arg(long, value_name = "URL", global = true, help_heading = "Broker")]
    pub amqp_url: Option<String>,
}

impl fmt::Debug for BrokerArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("BrokerArgs").field("amqp_url", &self.amqp_url.as_ref().map(|_| "***")).finish()
    }
}

impl BrokerArgs {
    /// The address, said on stderr, without its password, so that nobody wonders which broker it was.
    ///
    /// # Errors
    ///
    /// [`AddressError`] naming what is wrong or missing.
    pub fn address(&self, role: Role) -> Result<Address, AddressError> {
        let address = Address::from_environment(role, self.amqp_url.as_deref())?;
        // Nobody to tell if stderr is closed.
        let _ = writeln!(std::io::stderr(), "broker: {address}, {}", address.source());
        Ok(address)
    }
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Incomplete => 1,
            Self::Usage => 2,
            Self::NoBroker => 3,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl std::process::Termination for Exit {
    fn report(self) -> std::process::ExitCode {
        self.into()
    }
}

/// Prints `error: …` on stderr with its causes, each once.
pub fn print_error(error: &(dyn Error + 'static)) {
    let _ = writeln!(std::io::stderr(), "error: {}", WithCauses(error));
}

/// Logs to stderr what `RUST_LOG` asks for, warnings without it.
///
/// The AMQP library's trace level is left out whatever `RUST_LOG` says: it prints the frames of the login.
pub fn init_logging() {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let without_login = filter_fn(|meta| *meta.level() < tracing::Level::TRACE || !meta.target().starts_with("lapin"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // An error only says that somebody else has set up logging already, which is then theirs.
    let _ = tracing_subscriber::registry().with(lines.with_filter(wanted).with_filter(without_login)).try_init();
}

struct WithCauses<'a>(&'a (dyn Error + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many of our messages carry their cause's already, for those who print only one.
            if !shown.contains(&text) {
                write!(f, "\n  because: {text}")?;
                shown = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

/// lapin logs as errors what our own messages say better.
const DEFAULT_LOG: &str = "warn,lapin=off";

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_printed_with_causes_that_it_does_not_say_itself() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(WithCauses(&error).to_string(), "outer\n  because: inner");
        let address = Address::parse("http://x").unwrap_err();
        assert!(!WithCauses(&address).to_string().contains("because"));
    }
}
