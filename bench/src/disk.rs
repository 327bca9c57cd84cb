//! Where files are written whose speed is measured: beside this program, where its build was, and not in a folder for temporary
//! files, which may be memory.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::Error;

/// A new folder there, gone when it is dropped.
///
/// # Errors
///
/// When nothing can be written there.
pub fn folder() -> Result<TempDir, Error> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(place()?)?)
}

/// What kind of disk that is: its file system's name.
///
/// # Errors
///
/// When this program's file is not to be found.
pub fn filesystem() -> Result<String, Error> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    Ok(filesystem_of(&place()?.canonicalize()?, &mounts).unwrap_or("an unknown file system").to_owned())
}

/// What is mounted deepest above this path, and of those the last.
fn filesystem_of<'m>(path: &Path, mounts: &'m str) -> Option<&'m str> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounted.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, name)| name)
}

fn place() -> Result<PathBuf, Error> {
    let program = env::current_exe()?;
    Ok(program.parent().ok_or("this program lies in no folder")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_on_what_is_mounted_deepest_above_it() {
        let mounts = "a / ext4 rw 0 0\nb /tmp tmpfs rw 0 0\nc /tmpx xfs rw 0 0\n";
        assert_eq!(filesystem_of(Path::new("/tmp/x"), mounts), Some("tmpfs"));
        assert_eq!(filesystem_of(Path::new("/tmpy"), mounts), Some("ext4"));
        assert_eq!(filesystem_of(Path::new("/tmpy"), ""), None);
    }
}
