//! Whom a server runs as: PostgreSQL refuses to be root.

use super::PostgresError;
use crate::broker::{LabError, place, run::run};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// The user of a server: `nobody` where we are root, else ourselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account(Option<(u32, u32)>);

impl Account {
    pub(super) async fn for_servers() -> Result<Self, PostgresError> {
        if id(&["-u"]).await? != 0 {
            return Ok(Self(None));
        }
        Ok(Self(Some((id(&["-u", "nobody"]).await?, id(&["-g", "nobody"]).await?))))
    }

    /// Lets the program run as this user.
    pub(super) fn apply(self, command: &mut std::process::Command) {
        use std::os::unix::process::CommandExt;
        if let Self(Some((user, group))) = self {
            command.uid(user).gid(group);
        }
    }

    /// Whether this user may come to this place. For `nobody` the rights count that everybody has.
    pub(super) fn reaches(self, place: &Path) -> bool {
        let open = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
        self.0.is_none() || place.canonicalize().is_ok_and(|place| place.ancestors().all(open))
    }

    /// The folder in which the folders of servers are made: on a disk, as a node's, and where this user comes to.
    pub(super) fn place(self) -> Result<PathBuf, PostgresError> {
        let usual = [place::for_nodes(), PathBuf::from("/var/tmp"), PathBuf::from("/tmp")];
        usual.iter().find(|folder| self.reaches(folder)).cloned().ok_or_else(|| PostgresError::NowhereToRun {
            tried: usual.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Opens the way through a folder that only we may enter.
    pub(super) fn let_through(self, folder: &Path) -> Result<(), LabError> {
        let mode = if self.0.is_some() { 0o711 } else { 0o700 };
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(LabError::file("open", folder))
    }

    /// Makes a folder that is this user's alone.
    pub(super) fn own_folder(self, folder: &Path) -> Result<(), LabError> {
        fs::create_dir(folder).map_err(LabError::file("create", folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(LabError::file("protect", folder))?;
        self.own(folder)
    }

    /// Copies a folder with all that is in it. The copy is this user's.
    ///
    /// Not on another thread: that one would go on copying while the watchdog clears up.
    pub(super) fn copy(self, from: &Path, to: &Path) -> Result<(), LabError> {
        fs::create_dir(to).map_err(LabError::file("create", to))?;
        for entry in fs::read_dir(from).map_err(LabError::file("read", from))? {
            let entry = entry.map_err(LabError::file("read", from))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type().map_err(LabError::file("look at", &source))?;
            if kind.is_dir() {
                self.copy(&source, &target)?;
            } else if kind.is_symlink() {
                let leads_to = fs::read_link(&source).map_err(LabError::file("read", &source))?;
                std::os::unix::fs::symlink(leads_to, &target).map_err(LabError::file("link", &target))?;
            } else {
                fs::copy(&source, &target).map_err(LabError::file("copy", &source))?;
                self.own(&target)?;
            }
        }
        let like = fs::metadata(from).map_err(LabError::file("look at", from))?.permissions();
        fs::set_permissions(to, like).map_err(LabError::file("protect", to))?;
        self.own(to)
    }

    fn own(self, path: &Path) -> Result<(), LabError> {
        let Self(Some((user, group))) = self else { return Ok(()) };
        chown(path, Some(user), Some(group)).map_err(LabError::file("hand over", path))
    }
}

async fn id(arguments: &[&str]) -> Result<u32, LabError> {
    let answer = run(Command::new("id").args(arguments), ANSWERS).await?;
    answer.trim().parse().map_err(|_| LabError::Unreadable { step: format!("id {}", arguments.join(" ")), answer })
}

const ANSWERS: Duration = Duration::from_secs(10);
