//! Why there is no address of a broker.

use std::{io, path::PathBuf};

use crate::{address_source::Source, amqp_url::UrlError};

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// A part of the URL is wrong.
    #[error("the AMQP URL {from}: {cause}")]
    Url {
        /// Which URL.
        from: Source,
        /// What is wrong with it.
        #[source]
        cause: UrlError,
    },
    /// The URL names a user without a password, and no variable has one.
    #[error(
        "no password for the user “{user}”: put it into the URL (amqp://{user}:PASSWORD@…), or its file's name into \
         AMQP_PASSWORD_FILE, or itself into AMQP_PASSWORD"
    )]
    NoPassword {
        /// Whose password is missing.
        user: String,
    },
    /// The file that `AMQP_PASSWORD_FILE` names cannot be read, or is empty.
    #[error("the password file {} (AMQP_PASSWORD_FILE) cannot be read: {source}", .path.display())]
    PasswordFile {
        /// The file's name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An environment variable is not UTF-8.
    #[error("the environment variable {name} is not UTF-8: set it again")]
    NotUtf8 {
        /// Its name.
        name: &'static str,
    },
}
