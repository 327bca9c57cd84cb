//! Where the lines go: a file or standard output.
//!
//! A line counts as written once the operating system has all of it; only then is its message acknowledged. One
//! thread writes, because a pipe that nobody reads must hold up the handlers and not the heartbeats. What is ready
//! together is written together.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::fd::AsFd as _,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The way to the one thread that writes. It ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    jobs: mpsc::Sender<Job>,
}

/// The thread that writes, to be joined after every [`Output`] is gone.
#[derive(Debug)]
pub(crate) struct Writing {
    thread: thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Writing {
    /// Waits until the thread has ended, but not for an output that nobody reads: that would be for ever.
    pub(crate) async fn join(self) {
        // It never sends: it lets go when it ends.
        if timeout(JOINING, self.ended).await.is_ok() {
            let _ = self.thread.join();
        }
    }
}

/// A line was not, or not wholly, written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteFailed {
    /// Who read the output has gone.
    #[error("nobody reads the output any more")]
    Closed,
    /// A pipe is full.
    #[error("nobody has read the output for {waited:?}")]
    Unread {
        /// How long the line waited.
        waited: Duration,
    },
    /// A full disk, say.
    #[error("the output cannot be written: {0}")]
    Io(#[source] Arc<io::Error>),
}

impl Output {
    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// What the operating system says against it.
    pub(crate) fn file(path: &Path) -> io::Result<(Self, Writing)> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let torn = ends_torn(path);
        file.flush()?;
        Self::to(file, torn)
    }

    /// Standard output.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn stdout() -> io::Result<(Self, Writing)> {
        // Not through `io::stdout`: its buffer would hide how far a failed write came.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::to(file, false)
    }

    fn to(file: impl Write + Send + 'static, torn: bool) -> io::Result<(Self, Writing)> {
        let (jobs, todo) = mpsc::channel(PLACES);
        let lines = Lines { file, torn };
        let (alive, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("output".into()).spawn(move || {
            lines.write_all_of(todo);
            drop(alive);
        })?;
        Ok((Self { jobs }, Writing { thread, ended }))
    }

    /// Writes one line and comes back when the operating system has it.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`]: a part of the line may stand in the output. The next line starts on a new one.
    ///
    /// # Cancel safety
    ///
    /// A dropped call withdraws the line if its writing has not begun; else it may be written.
    pub(crate) async fn write(&self, line: Vec<u8>) -> Result<(), WriteFailed> {
        let (written, answer) = oneshot::channel();
        self.jobs.send(Job { line, written }).await.map_err(|_| WriteFailed::Closed)?;
        answer.await.unwrap_or(Err(WriteFailed::Closed))
    }
}

#[derive(Debug)]
struct Job {
    line: Vec<u8>,
    written: oneshot::Sender<Result<(), WriteFailed>>,
}

struct Lines<W> {
    file: W,
    /// Whether the output ends inside a line.
    torn: bool,
}

impl<W: Write> Lines<W> {
    fn write_all_of(mut self, mut todo: mpsc::Receiver<Job>) {
        while let Some(first) = todo.blocking_recv() {
            let mut batch = vec![first];
            let mut size = batch[0].line.len();
            while size < TOGETHER {
                let Ok(next) = todo.try_recv() else { break };
                size += next.line.len();
                batch.push(next);
            }
            self.write(batch);
        }
    }

    /// Writes a batch and answers each of its lines by what became of that line.
    fn write(&mut self, mut batch: Vec<Job>) {
        // A handler that was given up does not want its line any more: its message comes again.
        batch.retain(|job| !job.written.is_closed());
        let mut bytes = Vec::with_capacity(batch.iter().map(|job| job.line.len()).sum::<usize>() + 1);
        if self.torn {
            bytes.push(b'\n');
        }
        let mut ends = Vec::with_capacity(batch.len());
        for job in &batch {
            bytes.extend_from_slice(&job.line);
            ends.push(bytes.len());
        }
        let (reached, failed) = self.write_bytes(&bytes);
        if let Some(last) = reached.checked_sub(1) {
            self.torn = bytes[last] != b'\n';
        }
        for (job, end) in batch.into_iter().zip(ends) {
            let became = match &failed {
                Some(failed) if end > reached => Err(failed.clone()),
                _ => Ok(()),
            };
            // Who is not there to hear it has been cancelled meanwhile.
            let _ = job.written.send(became);
        }
    }

    /// How many bytes the operating system took, and why not all.
    fn write_bytes(&mut self, bytes: &[u8]) -> (usize, Option<WriteFailed>) {
        let mut reached = 0;
        while reached < bytes.len() {
            let error = match self.file.write(&bytes[reached..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(n) => {
                    reached += n;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return (reached, Some(WriteFailed::of(error)));
        }
        match self.file.flush() {
            Ok(()) => (reached, None),
            Err(error) => (0, Some(WriteFailed::of(error))),
        }
    }
}

impl WriteFailed {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// Whether a file ends inside a line, as a crash in the middle of a write leaves it. What cannot be read (a pipe, a
/// device) does not.
pub(super) fn ends_torn(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [b'\n'];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte != b'\n')
}

/// How long the end of the thread is waited for.
const JOINING: Duration = Duration::from_secs(1);
/// Lines that may wait for the thread.
const PLACES: usize = 256;
/// What is written together at most, a single larger line aside.
const TOGETHER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes this many bytes and then has no room left.
    struct Small(Arc<std::sync::Mutex<Vec<u8>>>, usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut held = self.0.lock().unwrap();
            let room = self.1.saturating_sub(held.len()).min(bytes.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            held.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn job(line: &str) -> (Job, oneshot::Receiver<Result<(), WriteFailed>>) {
        let (written, answer) = oneshot::channel();
        (Job { line: line.as_bytes().to_vec(), written }, answer)
    }

    #[test]
    fn a_full_disk_fails_the_lines_it_cut_and_no_other_and_the_next_line_stands_alone() {
        let disk = Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let mut lines = Lines { file: Small(disk.clone(), 6), torn: false };
        let (one, mut first) = job("one\n");
        let (two, mut second) = job("two\n");
        lines.write(vec![one, two]);
        assert!(first.try_recv().unwrap().is_ok());
        assert!(matches!(second.try_recv().unwrap(), Err(WriteFailed::Io(_))));
        assert_eq!(*disk.lock().unwrap(), b"one\ntw");

        lines.file.1 = 100;
        let (two, mut again) = job("two\n");
        lines.write(vec![two]);
        assert!(again.try_recv().unwrap().is_ok());
        assert_eq!(*disk.lock().unwrap(), b"one\ntw\ntwo\n");
    }

    #[test]
    fn the_line_of_a_handler_that_was_given_up_is_not_written() {
        let disk = Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let mut lines = Lines { file: Small(disk.clone(), 100), torn: false };
        let (gone, answer) = job("gone\n");
        drop(answer);
        let (here, _answer) = job("here\n");
        lines.write(vec![gone, here]);
        assert_eq!(*disk.lock().unwrap(), b"here\n");
    }
}
