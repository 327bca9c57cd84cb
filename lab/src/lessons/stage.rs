//! What every lesson works with: the node, a folder of its own, our programs, and waiting that ends.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    LessonError, Programs,
    command::CommandLine,
    evidence::Handled,
    running::{Ended, Running},
    seed::Choices,
    show::Show,
};
use crate::{
    broker::{MARK, Node},
    faults::Proxy,
};

/// Half a lesson's workplace.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) node: &'a Node,
    pub(crate) show: &'a Show,
    programs: &'a Programs,
    folder: PathBuf,
    choices: Choices,
    guarded: bool,
    started: Cell<u64>,
    acts: Cell<u64>,
}

impl<'a> Stage<'a> {
    /// Its folder lies inside the node's own, and goes with it.
    pub(crate) fn new(
        node: &'a Node,
        programs: &'a Programs,
        show: &'a Show,
        choices: Choices,
        guarded: bool,
        lesson: usize,
    ) -> Result<Self, LessonError> {
        let name = format!("{lesson}-{}", if guarded { "with" } else { "without" });
        let folder = node.folder().join("lessons").join(name);
        fs::create_dir_all(&folder).map_err(LessonError::file("create", &folder))?;
        Ok(Self { node, show, programs, folder, choices, guarded, started: Cell::new(0), acts: Cell::new(1) })
    }

    /// The choices that the seed makes here: both halves of a lesson get the same.
    pub(crate) fn choices(&self) -> Choices {
        self.choices.clone()
    }

    /// The number of the act, from 1: each has files of its own.
    pub(crate) fn act(&self) -> u64 {
        self.acts.get()
    }

    /// The next act begins.
    pub(crate) fn next_act(&self) {
        self.acts.set(self.acts.get() + 1);
    }

    /// A file of this half.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// A proxy before the node.
    pub(crate) async fn proxy(&self) -> Result<Proxy, LessonError> {
        Proxy::start(self.node.amqp_address()).await.map_err(LessonError::Proxy)
    }

    /// Starts one of our programs.
    pub(crate) fn start(&self, line: &CommandLine) -> Result<Running, LessonError> {
        self.started.set(self.started.get() + 1);
        let broker = line.through.unwrap_or_else(|| self.node.amqp_address());
        let environment = [
            // No user: each program has its own, as with the compose file.
            ("AMQP_URL", format!("amqp://{broker}")),
            // With the node's mark on them they end with the node, whatever ends this process.
            (MARK, self.node.folder().to_string_lossy().into_owned()),
        ];
        Running::start(line, &self.programs.path(line.program), &self.folder, self.started.get(), &environment)
    }

    /// Runs one of our programs to its end, which must be with one of these codes.
    pub(crate) async fn run(&self, line: &CommandLine, codes: &[i32]) -> Result<Ended, LessonError> {
        self.start(line)?.end(PROGRAM_ENDS).await?.with(codes)
    }

    /// Prints a command line that is about to run.
    pub(crate) fn command(&self, line: &CommandLine) {
        self.show.line(format!("     {line}"));
    }

    /// Prints a command line that both halves run: once is enough.
    pub(crate) fn shared_command(&self, line: &CommandLine) {
        if !self.guarded {
            self.command(line);
        }
    }

    /// Prints what came of it.
    pub(crate) fn result(&self, text: impl AsRef<str>) {
        self.show.line(format!("     → {}", text.as_ref()));
    }

    /// Takes what is left in the queue, so that nothing counts as lost that is only late.
    pub(crate) async fn drain(&self, queue: &str) -> Result<Vec<Handled>, LessonError> {
        let name = format!("drained-{}.ndjson", self.started.get());
        let line = CommandLine::consumer(&format!("run --from {queue} --output {name} --json --idle 1"));
        // Once is enough, unless the machine is so busy that messages come more than a second apart.
        for _ in 0..DRAINS {
            self.run(&line, &[0]).await?;
            if self.node.queue_depth(queue).await? == 0 {
                return self.handled(&name);
            }
        }
        Err(LessonError::TimedOut { what: format!("the end of the queue {queue}"), waited: PROGRAM_ENDS })
    }

    /// What a consumer's `--output FILE --json` holds; nothing if the file is not there.
    pub(crate) fn handled(&self, file: &str) -> Result<Vec<Handled>, LessonError> {
        self.lines(file)?.iter().map(|line| Handled::parse(line)).collect()
    }

    /// What the commands of `--exec` wrote: a payload a line.
    pub(crate) fn written(&self, file: &str) -> Result<Vec<Handled>, LessonError> {
        Ok(self.lines(file)?.into_iter().map(|payload| Handled { payload, redelivered: false }).collect())
    }

    /// The lines of a file; none if it is not there.
    pub(crate) fn lines(&self, file: &str) -> Result<Vec<String>, LessonError> {
        let path = self.path(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(LessonError::file("read", path)(error)),
        }
    }

    /// Waits until so many messages are ready in the queue, by the broker's exact count.
    pub(crate) async fn until_ready(&self, queue: &str, messages: u64) -> Result<(), LessonError> {
        let what = format!("{messages} messages in the queue {queue}");
        self.until(&what, async || Ok(self.node.queue_depth(queue).await? == messages)).await
    }

    /// Waits until a condition holds, and says what was waited for if it never does.
    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl AsyncFn() -> Result<bool, LessonError>,
    ) -> Result<(), LessonError> {
        let started = Instant::now();
        while !holds().await? {
            if started.elapsed() > PATIENCE {
                return Err(LessonError::TimedOut { what: what.to_owned(), waited: PATIENCE });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// A setting for `--watch` alone: who watches takes more time than a machine does.
    pub(crate) fn if_watched(&self, watched: &'static str, else_: &'static str) -> &'static str {
        if self.show.watches() { watched } else { else_ }
    }

    /// With `--watch` a producer takes its time, so that the dashboard can follow.
    pub(crate) fn pace(&self) -> &'static str {
        self.if_watched("--rate 50", "")
    }
}

/// A program that takes longer hangs: the longest, five retries, takes 40 s.
const PROGRAM_ENDS: Duration = Duration::from_secs(120);
const DRAINS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
