//! A password, fixed or in a file that may change while the program runs. Nothing here prints it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Where the password is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Password {
    Fixed(String),
    /// Read again for each new connection.
    InFile(PathBuf),
}

impl Password {
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Fixed(_) => None,
            Self::InFile(path) => Some(path),
        }
    }

    /// The password as it is now.
    pub(crate) fn read(&self) -> io::Result<String> {
        match self {
            Self::Fixed(password) => Ok(password.clone()),
            Self::InFile(path) => in_file(fs::read_to_string(path)?),
        }
    }

    /// As [`read`](Self::read), without holding up the runtime.
    pub(crate) async fn read_now(&self) -> io::Result<String> {
        match self {
            Self::Fixed(password) => Ok(password.clone()),
            Self::InFile(path) => in_file(tokio::fs::read_to_string(path).await?),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn in_file(text: String) -> io::Result<String> {
    // Editors and `echo` end a file with a newline that is not part of the password.
    match text.trim_end_matches(['\r', '\n']) {
        // As it is for a moment while it is being written. RabbitMQ lets nobody in with an empty password.
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        password => Ok(password.to_owned()),
    }
}
