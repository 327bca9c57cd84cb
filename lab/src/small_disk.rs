//! A disk that runs full for real, for tests of what writes to one: a database in a file, a log.

use crate::broker::{LabError, MARK, ONLY_WHILE_WATCHED, Watchdog, place, run::run};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// A folder that holds so many bytes and no more: past them the kernel says "no space left on device" (ENOSPC).
///
/// It is a file system in memory. Dropping it, or the end of this process in whatever way, unmounts it;
/// [`SmallDisk::close`] does so and waits.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    bytes: u64,
    watchdog: Watchdog,
}

impl SmallDisk {
    /// Makes an empty disk of this size, rounded up to whole pages of memory.
    ///
    /// # Errors
    ///
    /// [`SmallDiskError::CannotMount`] where this process may not mount anything.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is half made is removed.
    pub async fn of(bytes: u64) -> Result<Self, SmallDiskError> {
        let farewell = |folder: &Path| {
            let disk = folder.join("disk").to_string_lossy().into_owned();
            // Lazily: somebody who still has a file open there does not keep it.
            ["umount", "-l", &disk].map(str::to_owned).to_vec()
        };
        let watchdog = Watchdog::start(&place::for_nodes(), farewell).await?;
        let path = watchdog.folder().join("disk");
        fs::create_dir(&path).map_err(LabError::file("create", &path))?;
        let mut mount = Command::new("sh");
        mount.arg("-c").arg(ONLY_WHILE_WATCHED).arg("sh").arg(watchdog.folder()).env(MARK, watchdog.folder());
        mount.args(["mount", "-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "correio-lab"]).arg(&path);
        match run(&mut mount, MOUNTS).await {
            Err(LabError::CommandFailed { output: why, .. }) => return Err(SmallDiskError::CannotMount { why }),
            Err(other) => return Err(other.into()),
            Ok(_) => {}
        }
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(LabError::file("look at", path));
        if device(&path)? == device(watchdog.folder())? {
            // To fill it would fill the machine's own.
            return Err(SmallDiskError::CannotMount {
                why: "it was mounted where this process does not see it".into(),
            });
        }
        Ok(Self { path, bytes, watchdog })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills what is left with a file of its own, to the last page. Filling a full disk does no harm.
    ///
    /// What is there already keeps the pages that it has: it can be written over, but hardly grow.
    ///
    /// # Errors
    ///
    /// When the file cannot be written for another reason than that the disk is full.
    pub fn fill(&self) -> Result<(), SmallDiskError> {
        let path = self.filler();
        let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        let mut filler = match File::options().create(true).append(true).open(&path) {
            Err(error) if full(&error) => return Ok(()),
            opened => opened.map_err(LabError::file("open", &path))?,
        };
        let mut written = 0;
        // It is larger than it was asked to be by a page at most.
        while written < self.bytes + CHUNK.len() as u64 {
            match filler.write(&CHUNK) {
                Ok(more) => written += more as u64,
                Err(error) if full(&error) => return Ok(()),
                Err(error) => return Err(LabError::file("write", &path)(error).into()),
            }
        }
        Err(LabError::file("fill the disk with", &path)(io::Error::other("it has more room than it was made with"))
            .into())
    }

    /// Gives the room back that [`SmallDisk::fill`] took. Without that it does nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed.
    pub fn free(&self) -> Result<(), SmallDiskError> {
        let path = self.filler();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LabError::file("remove", &path)(error).into()),
            _ => Ok(()),
        }
    }

    /// Unmounts the disk, throws away what is on it, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// [`LabError::TimedOut`] when it will not go.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is left is cleared away in the background.
    pub async fn close(self) -> Result<(), SmallDiskError> {
        Ok(self.watchdog.end().await?)
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

/// Why a small disk could not be had, or not be filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmallDiskError {
    /// The right to mount is missing, or there is no such file system.
    #[error(
        "cannot mount a disk in memory (tmpfs): {why}\nThis needs Linux and the right CAP_SYS_ADMIN. Get it in any of these \
         ways:\n  - run this as root\n  - run this in a namespace of its own: unshare --user --map-root-user --mount COMMAND\n  \
         - in a container: docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
    )]
    CannotMount {
        /// What `mount` says.
        why: String,
    },
    /// A file, a helper program or a deadline.
    #[error(transparent)]
    Lab(#[from] LabError),
}

const CHUNK: [u8; 4096] = [0; 4096];
const MOUNTS: Duration = Duration::from_secs(10);
