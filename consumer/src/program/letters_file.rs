//! The file that dead letters are written to: on the disk when [`LettersFile::sync`] or [`LettersFile::finish`] says so.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempPath;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufWriter};

use crate::{dead_letters::Letter, program::letters_whole, program::output::ends_torn};

/// Where letters are written, one JSON object a line.
pub(crate) struct LettersFile {
    to: Box<dyn AsyncWrite + Unpin + Send>,
    /// The same file, if it is one.
    file: Option<File>,
    /// What is still to be done before the file has its name.
    unnamed: Option<Unnamed>,
}

/// A whole file that is written beside its place: what stands there is left alone until the new one is complete.
struct Unnamed {
    /// Removed when dropped.
    beside: TempPath,
    place: PathBuf,
    /// The file that will be replaced, locked: no purge appends to it meanwhile.
    old: Option<File>,
}

/// What is to become of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is left as it is, and the letters are written nowhere.
    Refuse,
    /// The letters replace what is in it, once they are all there: until [`LettersFile::finish`] it is left as it is.
    Replace,
    /// The letters come behind what is in it. Nobody else appends to it meanwhile.
    Append,
}

impl LettersFile {
    /// Opens it, or standard output for `-`.
    ///
    /// A file that letters are appended to has its name on the disk then, and every other one gets it by [`finish`](Self::finish):
    /// dropped before, it leaves nothing.
    ///
    /// # Errors
    ///
    /// What the operating system says against it; [`io::ErrorKind::ResourceBusy`] when another writes to it.
    pub(crate) fn open(path: &Path, existing: Existing) -> io::Result<Self> {
        if path == Path::new("-") {
            let to = BufWriter::with_capacity(BUFFER, tokio::io::stdout());
            return Ok(Self { to: Box::new(to), file: None, unnamed: None });
        }
        match existing {
            Existing::Append => Self::appending(path),
            Existing::Refuse if path.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Existing::Refuse => Self::beside(path.to_owned(), None),
            Existing::Replace => match OpenOptions::new().write(true).open(path) {
                Ok(old) if old.metadata()?.is_file() => {
                    lock(&old)?;
                    // What a link leads to is replaced, not the link.
                    Self::beside(path.canonicalize()?, Some(old))
                }
                Ok(device) => Self::to(device, None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside(path.to_owned(), None),
                Err(error) => Err(error),
            },
        }
    }

    fn appending(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.is_file() {
            lock(&file)?;
            if ends_torn(path) {
                io::Write::write_all(&mut file, b"\n")?;
            }
            File::open(folder(path))?.sync_all()?;
        }
        Self::to(file, None)
    }

    fn beside(place: PathBuf, old: Option<File>) -> io::Result<Self> {
        let permissions = old.as_ref().map(|old| old.metadata().map(|old| old.permissions())).transpose()?;
        let (file, beside) = tempfile::Builder::new()
            .prefix(".dead-letters-")
            .permissions(permissions.clone().unwrap_or_else(|| Permissions::from_mode(READ_AND_WRITE)))
            .tempfile_in(folder(&place))?
            .into_parts();
        if let Some(permissions) = permissions {
            // The umask has taken some of them away.
            file.set_permissions(permissions)?;
        }
        Self::to(file, Some(Unnamed { beside, place, old }))
    }

    fn to(file: File, unnamed: Option<Unnamed>) -> io::Result<Self> {
        // A pipe or a device keeps nothing.
        let kept = if file.metadata()?.is_file() { Some(file.try_clone()?) } else { None };
        let to = BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file));
        Ok(Self { to: Box::new(to), file: kept, unnamed })
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

    /// Comes back when all that was written is on the disk under its name.
    ///
    /// # Errors
    ///
    /// What the operating system says against it; [`io::ErrorKind::AlreadyExists`] when another file has the name meanwhile, which is
    /// left as it is unless a file was to be replaced.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        self.sync().await?;
        let Some(unnamed) = self.unnamed.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || unnamed.name()).await.map_err(io::Error::other)?
    }
}

impl Unnamed {
    fn name(self) -> io::Result<()> {
        match self.old {
            Some(_) => self.beside.persist(&self.place)?,
            None => self.beside.persist_noclobber(&self.place)?,
        }
        File::open(folder(&self.place))?.sync_all()
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
/// For whom the umask lets: what a new file has.
const READ_AND_WRITE: u32 = 0o666;

#[cfg(test)]
mod tests {
    use std::fs;

    use correio_message::{Destination, Durability, Message};

    use super::*;

    fn letter(payload: &'static str) -> Letter {
        Letter::of(Message::new(Destination::queue("orders.dead").unwrap(), payload).encode(Durability::Persistent))
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_file_has_one_that_appends_to_it_and_is_free_when_that_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.ndjson");
        let mut first = LettersFile::open(&path, Existing::Append).unwrap();
        first.sync().await.unwrap();
        for existing in [Existing::Append, Existing::Replace] {
            let second = LettersFile::open(&path, existing).err().map(|error| error.kind());
            assert_eq!(second, Some(io::ErrorKind::ResourceBusy), "{existing:?}");
        }
        drop(first);
        assert!(LettersFile::open(&path, Existing::Append).is_ok());
    }

    #[tokio::test]
    async fn a_file_has_its_name_when_it_is_whole_and_one_that_is_given_up_leaves_nothing() {
        for existing in [Existing::Refuse, Existing::Replace] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("dead.ndjson");
            let mut given_up = LettersFile::open(&path, existing).unwrap();
            given_up.write(&letter("one")).await.unwrap();
            given_up.sync().await.unwrap();
            assert!(given_up.keeps() && !path.exists(), "{existing:?}");
            drop(given_up);
            assert!(names(folder.path()).is_empty(), "{existing:?}");

            let mut whole = LettersFile::open(&path, existing).unwrap();
            whole.write(&letter("one")).await.unwrap();
            whole.finish().await.unwrap();
            assert_eq!(names(folder.path()), ["dead.ndjson"], "{existing:?}");
            assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"), "{existing:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_as_it_was_until_the_new_one_is_whole_and_keeps_its_permissions_and_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("dead.ndjson"), folder.path().join("link"));
        fs::write(&path, "mine\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o602)).unwrap();
        std::os::unix::fs::symlink("dead.ndjson", &link).unwrap();
        let mut given_up = LettersFile::open(&link, Existing::Replace).unwrap();
        given_up.write(&letter("one")).await.unwrap();
        given_up.sync().await.unwrap();
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");

        LettersFile::open(&link, Existing::Replace).unwrap().finish().await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o602);
        assert!(link.is_symlink());
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[tokio::test]
    async fn a_file_that_is_there_or_comes_meanwhile_is_left_as_it_is_unless_it_is_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        let new = LettersFile::open(&path, Existing::Refuse).unwrap();
        fs::write(&path, "mine\n").unwrap();
        let refused = LettersFile::open(&path, Existing::Refuse).err().map(|error| error.kind());
        let late = new.finish().await.map_err(|error| error.kind());
        assert_eq!((refused, late), (Some(io::ErrorKind::AlreadyExists), Err(io::ErrorKind::AlreadyExists)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");
        assert_eq!(names(folder.path()), ["dead.ndjson"]);
    }
}
