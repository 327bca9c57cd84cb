//! `--dedup`: where handled messages are remembered.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::{Deduplication, LogError, PostgresLog, SqliteLog};

/// What was asked for. Shows no password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Dedup {
    Off,
    Memory,
    Sqlite(PathBuf),
    Postgres(String),
    /// Neither of these: what should have been given. Found out late, because clap would repeat what was given, and that may hold
    /// a password.
    Wrong(&'static str),
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLog {
    #[error("--dedup: {0}")]
    Wrong(&'static str),
    #[error("--dedup: {0}")]
    NotOpened(#[from] LogError),
}

impl Dedup {
    /// Opens it.
    pub(crate) async fn open(&self, remember_for: Option<Duration>) -> Result<Deduplication, NoLog> {
        Ok(match self {
            Self::Wrong(instead) => return Err(NoLog::Wrong(instead)),
            Self::Off => Deduplication::Off,
            Self::Memory => match (Deduplication::default(), remember_for) {
                (Deduplication::Memory { capacity, .. }, Some(retention)) => {
                    Deduplication::Memory { capacity, retention }
                }
                (memory, _) => memory,
            },
            Self::Sqlite(file) => {
                let mut log = SqliteLog::builder(file);
                if let Some(retention) = remember_for {
                    log = log.retention(retention);
                }
                log.open().await?.into()
            }
            Self::Postgres(url) => {
                let mut log = PostgresLog::builder(url);
                if let Some(retention) = remember_for {
                    log = log.retention(retention);
                }
                log.connect().await?.into()
            }
        })
    }
}

impl FromStr for Dedup {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            None if text == "off" => Self::Off,
            None if text == "memory" => Self::Memory,
            // As sqlx and others write it, too.
            Some(("sqlite", file)) => match file.strip_prefix("//").unwrap_or(file) {
                "" => Self::Wrong("name the file: sqlite:handled.db"),
                file => Self::Sqlite(file.into()),
            },
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => Self::Postgres(text.to_owned()),
            _ => Self::Wrong("give off, memory, sqlite:FILE or postgres://USER@HOST/DATABASE"),
        })
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(_) => f.write_str("postgres://***"),
            Self::Wrong(_) => f.write_str("***"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_spelling_and_what_is_none_is_refused_without_being_repeated() {
        assert_eq!("off".parse(), Ok(Dedup::Off));
        assert_eq!("memory".parse(), Ok(Dedup::Memory));
        assert_eq!("sqlite:a/b.db".parse(), Ok(Dedup::Sqlite("a/b.db".into())));
        assert_eq!("sqlite:///var/b.db".parse(), Ok(Dedup::Sqlite("/var/b.db".into())));
        let url = "postgres://ana:secret@db/orders";
        assert_eq!(url.parse(), Ok(Dedup::Postgres(url.into())));
        assert_eq!(format!("{:?}", Dedup::Postgres(url.into())), "postgres://***");
        for wrong in ["", "Memory", "sqlite:", "sqlite://", "sqlite", "postgres:x", "mysql://ana:secret@db/x"] {
            assert!(matches!(wrong.parse(), Ok(Dedup::Wrong(instead)) if !instead.contains("secret")), "{wrong}");
        }
    }
}
