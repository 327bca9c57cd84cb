//! The file that dead letters are written to: on the disk when [`LettersFile::sync`] says so.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufWriter};

use crate::{dead_letters::Letter, program::letters_whole, program::output::ends_torn};

/// Where letters are written, one JSON object a line.
pub(crate) struct LettersFile {
    to: Box<dyn AsyncWrite + Unpin>,
    /// The same file, if it is one.
    file: Option<File>,
}

/// What is to become of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is left as it is, and the letters are written nowhere.
    Refuse,
    /// The letters replace what is in it.
    Replace,
    /// The letters come behind what is in it. Nobody else appends to it meanwhile.
    Append,
}

impl LettersFile {
    /// Opens it, or standard output for `-`. A new file's name is on the disk then.
    ///
    /// # Errors
    ///
    /// What the operating system says against it; [`io::ErrorKind::ResourceBusy`] when another appends to it.
    pub(crate) fn open(path: &Path, existing: Existing) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { to: Box::new(BufWriter::with_capacity(BUFFER, tokio::io::stdout())), file: None });
        }
        let mut options = OpenOptions::new();
        options.write(true);
        match existing {
            Existing::Refuse => options.create_new(true),
            Existing::Replace => options.create(true).truncate(true),
            Existing::Append => options.create(true).append(true),
        };
        let mut file = options.open(path)?;
        if existing == Existing::Append && file.metadata()?.is_file() {
            lock(&file)?;
        }
        if existing == Existing::Append && ends_torn(path) {
            io::Write::write_all(&mut file, b"\n")?;
        }
        // A pipe or a device keeps nothing.
        let kept = if file.metadata()?.is_file() { Some(file.try_clone()?) } else { None };
        if kept.is_some() {
            File::open(folder(path))?.sync_all()?;
        }
        let to = BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file));
        Ok(Self { to: Box::new(to), file: kept })
    }

    /// Whether it is a file that keeps what is written to it.
    pub(crate) fn keeps(&self) -> bool {
        self.file.is_some()
    }

    /// Writes one letter.
    ///
    /// # Errors
    ///
    /// What the operating system says against it: a part of the letter may stand in the file.
    pub(crate) async fn write(&mut self, letter: &Letter) -> io::Result<()> {
        let mut line = letters_whole::as_json(letter).to_string();
        line.push('\n');
        self.to.write_all(line.as_bytes()).await
    }

    /// Comes back when all that was written is on the disk, or was taken by who reads the output.
    ///
    /// # Errors
    ///
    /// What the operating system says against it: it is not known then what is on the disk.
    pub(crate) async fn sync(&mut self) -> io::Result<()> {
        self.to.flush().await?;
        let Some(file) = &self.file else { return Ok(()) };
        let file = file.try_clone()?;
        tokio::task::spawn_blocking(move || file.sync_all()).await.map_err(io::Error::other)?
    }
}

/// One writer at a time: lines of two would be mixed. The lock ends with the file's last handle, and so with the process.
fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another process writes to it"),
        TryLockError::Error(error) => error,
    })
}

/// Where the file's name stands.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

const BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_has_one_that_appends_to_it_and_is_free_when_that_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.ndjson");
        let mut first = LettersFile::open(&path, Existing::Append).unwrap();
        first.sync().await.unwrap();
        let second = LettersFile::open(&path, Existing::Append).err().map(|error| error.kind());
        assert_eq!(second, Some(io::ErrorKind::ResourceBusy));
        drop(first);
        assert!(LettersFile::open(&path, Existing::Append).is_ok());
    }
}
