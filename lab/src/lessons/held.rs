//! The commands that a killed consumer leaves behind: a machine that dies takes them with it, so they are ended too.

use std::{fs, path::PathBuf};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Commands that wrote their process ids to a file. Dropped, it ends those that are still there.
#[derive(Debug)]
pub(crate) struct HeldCommands {
    begun: PathBuf,
}

impl HeldCommands {
    pub(crate) fn new(begun: PathBuf) -> Self {
        Self { begun }
    }

    /// Ends them now.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for HeldCommands {
    fn drop(&mut self) {
        // No file: none of them has begun.
        for line in fs::read_to_string(&self.begun).unwrap_or_default().lines() {
            // Each leads a process group of its own, with what its shell has started. 0 and 1 would mean others.
            if let Some(group) = line.trim().parse::<i32>().ok().filter(|group| *group > 1) {
                // It may have ended before.
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
        }
    }
}
