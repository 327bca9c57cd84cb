//! What the lab, or a test, fetches for itself: once, into `target/lab`, without root, in bounded time.

mod debian;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::broker::{LabError, place};

pub use crate::broker::run::run;
pub(crate) use debian::unpack;
pub use debian::{environment, package};

/// The folder of this name under `target/lab`, made now if it is not there. Two processes that want it at once wait for each
/// other.
///
/// # Errors
///
/// What `make` says, which is given an empty folder to fill; [`LabError::TimedOut`] when another process takes too long.
///
/// # Cancel safety
///
/// Cancel safe: what is half made is never taken for complete.
pub async fn once(name: &str, make: impl AsyncFnOnce(&Path) -> Result<(), LabError>) -> Result<PathBuf, LabError> {
    let lab = place::for_servers()?;
    let home = lab.join(name);
    if home.is_dir() {
        return Ok(home);
    }
    let _one_at_a_time = lock(&lab.join(format!("{name}.lock")), name).await?;
    if home.is_dir() {
        return Ok(home);
    }
    let part = lab.join(format!("{name}.part"));
    if part.exists() {
        // What a process left that was killed at it.
        fs::remove_dir_all(&part).map_err(LabError::file("remove", &part))?;
    }
    fs::create_dir_all(&part).map_err(LabError::file("create", &part))?;
    if let Err(error) = make(&part).await {
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    fs::rename(&part, &home).map_err(LabError::file("rename", &part))?;
    Ok(home)
}

/// Waits for the lock without blocking a thread of the runtime. It is released when the file is closed, also by a crash.
async fn lock(path: &Path, name: &str) -> Result<File, LabError> {
    let file = File::create(path).map_err(LabError::file("create", path))?;
    let deadline = Instant::now() + ANOTHER_IS_DONE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(LOOK_AGAIN).await,
            Err(TryLockError::WouldBlock) => {
                return Err(LabError::timed_out(
                    format!("waiting for another process to fetch {name}"),
                    ANOTHER_IS_DONE,
                ));
            }
            Err(TryLockError::Error(source)) => return Err(LabError::file("lock", path)(source)),
        }
    }
}

const ANOTHER_IS_DONE: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
