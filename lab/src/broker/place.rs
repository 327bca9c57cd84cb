//! Where the lab keeps its files: nodes in a temporary folder that lies on a disk, unpacked servers under `target/lab`.

use super::LabError;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The folder in which the folders of running nodes are made.
///
/// Not in memory: a broker whose disk is memory answers faster than any that somebody would run.
pub(crate) fn for_nodes() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    [env::temp_dir(), PathBuf::from("/var/tmp")]
        .into_iter()
        .find(|folder| folder.is_dir() && !in_memory(folder, &mounts))
        .unwrap_or_else(env::temp_dir)
}

/// The folder that outlives a run: `target/lab` of the build that this program comes from, else the user's cache.
pub(crate) fn for_servers() -> Result<PathBuf, LabError> {
    let program = env::current_exe().map_err(LabError::file("find", "the running program"))?;
    let folder = program
        .ancestors()
        // Cargo marks only a folder that it has made itself with a tag; the other file it always writes there.
        .find(|folder| ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|mark| folder.join(mark).is_file()))
        .map(|target| target.join("lab"))
        // RabbitMQ's start scripts do not survive a space in their path.
        .filter(|folder| !folder.to_string_lossy().contains(char::is_whitespace))
        .or_else(|| env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("correio-lab")))
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/correio-lab")))
        .unwrap_or_else(|| env::temp_dir().join("correio-lab"));
    fs::create_dir_all(&folder).map_err(LabError::file("create", &folder))?;
    Ok(folder)
}

/// Reads the mount table: the longest mount point above the folder decides.
fn in_memory(folder: &Path, mounts: &str) -> bool {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .is_some_and(|(_, kind)| matches!(kind, "tmpfs" | "ramfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_a_memory_disk_is_told_from_one_on_a_disk() {
        let mounts = "/dev/sda / ext4 rw 0 0\ntmpfs /nowhere tmpfs rw 0 0\n/dev/sdb /nowhere/disk ext4 rw 0 0\n";
        assert!(in_memory(Path::new("/nowhere"), mounts));
        assert!(in_memory(Path::new("/nowhere/a/b"), mounts));
        assert!(!in_memory(Path::new("/nowhere/disk/b"), mounts));
        assert!(!in_memory(Path::new("/elsewhere"), mounts));
    }
}
