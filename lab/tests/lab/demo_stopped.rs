//! A demo that is stopped in the middle of a lesson leaves neither a node nor a program nor a command of one behind.

use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn stopped_or_killed_while_a_consumer_holds_messages_nothing_is_left() {
    // SIGKILL too: then nobody is there any more who could clear up, but the watchdog.
    for (signal, code) in [(Signal::SIGINT, Some(1)), (Signal::SIGKILL, None)] {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
            .args(["acknowledged", "--json"])
            .env("TMPDIR", place.path())
            .env("AMQP_URL", "amqp://nobody:nothing@127.0.0.1:1/%2f")
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        // It builds the programs first.
        until("20 commands that hold a message", Duration::from_secs(600), || {
            begun(place.path()).is_some_and(|text| text.lines().count() == 20)
        });
        assert!(!marked(place.path()).is_empty(), "this test cannot see the demo's processes");

        nix::sys::signal::kill(Pid::from_raw(demo.id().cast_signed()), signal).expect("sent");
        let mut status = None;
        until("the end of the demo", Duration::from_secs(30), || {
            status = demo.try_wait().expect("a child");
            status.is_some()
        });
        assert_eq!(status.expect("ended").code(), code, "{signal}");
        until("the end of all it started", Duration::from_secs(30), || marked(place.path()).is_empty());
        until("an empty folder", Duration::from_secs(30), || folders(place.path()).is_empty());
    }
}

/// What the commands of the first half have written.
fn begun(place: &Path) -> Option<String> {
    let node = folders(place).into_iter().next()?;
    fs::read_to_string(node.join("lessons/1-without/begun")).ok()
}

fn folders(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).expect("there");
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// The processes that carry the mark of a node in this folder.
fn marked(place: &Path) -> Vec<PathBuf> {
    let mark = format!("CORREIO_LAB_NODE={}", place.display()).into_bytes();
    let carries = |process: &PathBuf| {
        fs::read(process.join("environ")).is_ok_and(|variables| variables.windows(mark.len()).any(|part| part == mark))
    };
    let processes = fs::read_dir("/proc").expect("Linux");
    processes.filter_map(|entry| Some(entry.ok()?.path())).filter(carries).collect()
}

fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
