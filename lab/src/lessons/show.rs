//! What a run says: text for people, or an object for programs on each line.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::mpsc;

/// How a run is shown.
#[derive(Debug)]
pub(crate) struct Show {
    json: bool,
    watch: Option<Watch>,
}

/// Holding each state until Enter.
#[derive(Debug)]
struct Watch {
    /// Whoever sits there; without a terminal a state is held for [`HELD`].
    enter: Option<tokio::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Show {
    pub(crate) fn new(json: bool, watch: bool) -> Self {
        Self { json, watch: watch.then(|| Watch { enter: io::stdin().is_terminal().then(|| read_enter().into()) }) }
    }

    /// Whether states are held.
    pub(crate) fn watches(&self) -> bool {
        self.watch.is_some()
    }

    /// A line for people; with `--json` nobody reads it.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            put(text.as_ref());
        }
    }

    /// An object for programs.
    pub(crate) fn object(&self, value: &Value) {
        if self.json {
            put(&value.to_string());
        }
    }

    /// With `--watch`: what is going to be seen where.
    pub(crate) fn look(&self, at: &str) {
        if self.watch.is_some() {
            self.aside(&format!("     look at  {at}"));
        }
    }

    /// With `--watch`: holds what is there now until Enter.
    pub(crate) async fn hold(&self) {
        let Some(watch) = &self.watch else { return };
        match &watch.enter {
            Some(enter) => {
                self.aside("     … Enter to go on");
                let mut enter = enter.lock().await;
                // One that was pressed before this was asked does not count.
                let _ = enter.try_recv();
                // Closed: there will be no Enter any more.
                if enter.recv().await.is_none() {
                    tokio::time::sleep(HELD).await;
                }
            }
            None => {
                self.aside(&format!("     … held for {} s", HELD.as_secs()));
                tokio::time::sleep(HELD).await;
            }
        }
    }

    /// For people also when programs read the output.
    fn aside(&self, text: &str) {
        if self.json {
            // Nobody to tell if stderr is closed.
            let _ = writeln!(io::stderr(), "{text}");
        } else {
            put(text);
        }
    }
}

/// A reader that has gone away is no reason to fail: the exit status says how it ended.
fn put(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Lines of the terminal, read on a thread of its own: such a read cannot be withdrawn.
fn read_enter() -> mpsc::Receiver<()> {
    let (pressed, enter) = mpsc::channel(1);
    // Ends with the process, or with the terminal.
    std::thread::spawn(move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            // An Enter that nobody waits for is none.
            if let Err(mpsc::error::TrySendError::Closed(())) = pressed.try_send(()) {
                return;
            }
        }
    });
    enter
}

/// How long a state is held where nobody can press Enter: the dashboard is up to 10 s late.
const HELD: Duration = Duration::from_secs(15);
