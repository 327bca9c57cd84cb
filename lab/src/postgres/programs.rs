//! Where PostgreSQL's programs come from: this machine, or the packages of a Debian or Ubuntu, unpacked without installing.

use super::{PostgresError, account::Account};
use crate::{
    broker::{LabError, find, run::run},
    fetched,
};
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// The programs of one PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPrograms {
    /// Holds `postgres` and `initdb`, which find the rest of theirs from there.
    pub(super) folder: PathBuf,
    pub(super) environment: Vec<(String, OsString)>,
    /// Where they are unpacked, if they are: this may be copied to where the server's user comes to.
    pub(super) unpacked: Option<PathBuf>,
}

impl PostgresPrograms {
    /// Finds programs: those of `CORREIO_POSTGRES` (a folder, or `debian`), else the machine's own (along `PATH`, then in
    /// `/usr/lib/postgresql/*/bin`, the newest), else the packages of a Debian or Ubuntu, unpacked under `target/lab/`.
    ///
    /// # Errors
    ///
    /// [`PostgresError::NotPrograms`] when `CORREIO_POSTGRES` names none; [`PostgresError::NoPrograms`] when there is no way to
    /// get any, with what was tried.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a download that is broken off leaves nothing that a later one would take for complete.
    pub async fn discover() -> Result<Self, PostgresError> {
        let account = Account::for_servers().await?;
        match env::var("CORREIO_POSTGRES").unwrap_or_default().trim() {
            "" => {}
            "debian" => return Self::debian().await,
            folder => return Self::in_folder_for(Path::new(folder), account),
        }
        let mut tried = Vec::new();
        for folder in on_this_machine() {
            match Self::in_folder_for(&folder, account) {
                Ok(programs) => return Ok(programs),
                Err(why) => tried.push(why.to_string()),
            }
        }
        if tried.is_empty() {
            tried.push("installed: no `postgres` on the path, nothing in /usr/lib/postgresql".to_owned());
        }
        match Self::debian().await {
            Ok(programs) => Ok(programs),
            Err(why) => {
                tried.push(format!("packages of this Debian or Ubuntu: {why}"));
                Err(PostgresError::NoPrograms { tried })
            }
        }
    }

    /// The programs in this folder.
    ///
    /// # Errors
    ///
    /// [`PostgresError::NotPrograms`] when `postgres` or `initdb` is not there, or the user that a server runs as cannot come there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn in_folder(folder: &Path) -> Result<Self, PostgresError> {
        Self::in_folder_for(folder, Account::for_servers().await?)
    }

    /// The programs in the packages of this Debian or Ubuntu, even where others would be found before them.
    ///
    /// # Errors
    ///
    /// When the packages cannot be downloaded or unpacked.
    ///
    /// # Cancel safety
    ///
    /// As [`PostgresPrograms::discover`].
    pub async fn debian() -> Result<Self, PostgresError> {
        Self::unpacked_in(&fetched::package("postgresql").await?)
    }

    pub(super) fn unpacked_in(root: &Path) -> Result<Self, PostgresError> {
        let Some(folder) = versions_in(&root.join("usr/lib/postgresql")).into_iter().next() else {
            return Err(PostgresError::NotPrograms {
                folder: root.to_owned(),
                why: "nothing in usr/lib/postgresql".to_owned(),
            });
        };
        let programs = folder.strip_prefix(root).unwrap_or(&folder).to_string_lossy().into_owned();
        let environment = fetched::environment(root, &programs);
        Ok(Self { folder, environment, unpacked: Some(root.to_owned()) })
    }

    /// What `postgres` says of itself, such as `15.18`.
    pub(super) async fn version(&self) -> Result<String, LabError> {
        let mut command = Command::new(self.folder.join("postgres"));
        command.arg("--version").envs(self.environment.iter().map(|(name, value)| (name, value)));
        let answer = run(&mut command, ANSWERS).await?;
        let version = answer.split_whitespace().nth(2).map(str::to_owned);
        version.ok_or(LabError::Unreadable { step: "postgres --version".to_owned(), answer })
    }

    fn in_folder_for(folder: &Path, account: Account) -> Result<Self, PostgresError> {
        let refuse = |why: String| Err(PostgresError::NotPrograms { folder: folder.to_owned(), why });
        // What lies on the path is often a link; the programs look for the rest of theirs from where they really are.
        let Ok(postgres) = folder.join("postgres").canonicalize() else {
            return refuse("there is no `postgres`".to_owned());
        };
        let home = postgres.parent().unwrap_or(folder);
        if !home.join("initdb").is_file() {
            return refuse(format!("there is no `initdb` beside {}", postgres.display()));
        }
        if !account.reaches(home) {
            return refuse("PostgreSQL does not run as root, and the user nobody may not come there".to_owned());
        }
        Ok(Self { folder: home.to_owned(), environment: Vec::new(), unpacked: None })
    }
}

fn on_this_machine() -> Vec<PathBuf> {
    let on_the_path = find("postgres").and_then(|program| program.parent().map(Path::to_owned));
    on_the_path.into_iter().chain(versions_in(Path::new("/usr/lib/postgresql"))).collect()
}

/// The folders of programs of the versions that lie here side by side, the newest first.
fn versions_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs): &(u32, PathBuf)| programs.join("postgres").is_file())
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, programs)| programs).collect()
}

const ANSWERS: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_versions_side_by_side_the_newest_is_taken_by_number() {
        let folder = tempfile::tempdir().expect("folder");
        for version in ["9", "15", "no-version", "16"] {
            fs::create_dir_all(folder.path().join(version).join("bin")).expect("made");
            if version != "16" {
                fs::write(folder.path().join(version).join("bin/postgres"), "").expect("written");
            }
        }
        let found = versions_in(folder.path());
        assert_eq!(found, [folder.path().join("15/bin"), folder.path().join("9/bin")]);
    }

    #[tokio::test]
    async fn a_folder_without_the_programs_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("folder");
        let error = PostgresPrograms::in_folder(folder.path()).await.expect_err("empty");
        assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{error}");
        fs::write(folder.path().join("postgres"), "").expect("written");
        let error = PostgresPrograms::in_folder(folder.path()).await.expect_err("half");
        assert!(error.to_string().contains("initdb"), "{error}");
    }
}
