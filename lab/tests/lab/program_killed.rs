//! Nothing is left behind, whatever happens to the program that started a node.

use correio_lab::broker::{Brokers, Login, NodeOptions};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Not a test by itself: the program that the other test starts and kills.
#[tokio::test]
async fn a_program_that_holds_a_node() {
    if std::env::var_os("LAB_TEST_HOLD_A_NODE").is_none() {
        return;
    }
    let brokers = Brokers::from_env().expect("brokers");
    let broker = brokers.iter().next().expect("one at least");
    let node = broker.start(NodeOptions::default()).await.expect("a node");
    println!("\nholding {}", node.amqp_url(Login::Lab));
    std::future::pending::<()>().await;
}

#[test]
fn a_program_that_is_killed_leaves_no_process_and_no_folder() {
    let mut program = Command::new(std::env::current_exe().expect("this program"))
        .args(["program_killed::a_program_that_holds_a_node", "--exact", "--nocapture"])
        .env("LAB_TEST_HOLD_A_NODE", "1")
        // By this the folder of its node is found among those of others.
        .env("TMPDIR", own_temporary_folder())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(program.stdout.take().expect("piped"));
    let held = output.lines().map_while(Result::ok).find(|line| line.starts_with("holding "));
    assert!(held.is_some(), "the program did not get its node");
    let folder = only_folder_in(&own_temporary_folder()).expect("the node has a folder");
    assert!(left_of(&folder) > 0, "the node runs");

    nix::sys::signal::kill(Pid::from_raw(program.id().cast_signed()), Signal::SIGKILL).expect("killed");
    program.wait().expect("gone");

    let deadline = Instant::now() + Duration::from_secs(10);
    while left_of(&folder) > 0 || folder.exists() {
        assert!(Instant::now() < deadline, "{} left; the folder exists: {}", left_of(&folder), folder.exists());
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_dir(own_temporary_folder()).expect("nothing else was in it");
}

#[tokio::test]
async fn a_closed_or_dropped_node_leaves_nothing() {
    let brokers = Brokers::from_env().expect("brokers");
    let broker = brokers.iter().next().expect("one at least");
    let node = broker.start(NodeOptions::default()).await.expect("a node");
    let folder = node.folder().to_owned();
    assert!(left_of(&folder) > 0 && folder.exists());
    node.close().await.expect("closed");
    assert!(left_of(&folder) == 0 && !folder.exists());

    let node = broker.start(NodeOptions::default()).await.expect("a node");
    let folder = node.folder().to_owned();
    drop(node);
    let deadline = Instant::now() + Duration::from_secs(10);
    while left_of(&folder) > 0 || folder.exists() {
        assert!(Instant::now() < deadline, "something of {} is left", folder.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn own_temporary_folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("correio-lab-test-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn only_folder_in(parent: &Path) -> Option<PathBuf> {
    fs::read_dir(parent).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir())
}

/// How many processes and containers of the node there are.
fn left_of(folder: &Path) -> usize {
    processes_of(folder) + usize::from(has_container(folder))
}

fn has_container(folder: &Path) -> bool {
    let name = folder.file_name().expect("a name");
    Command::new("docker").arg("inspect").arg(name).output().is_ok_and(|answer| answer.status.success())
}

/// How many processes carry the folder in their environment, the watchdog's mark.
fn processes_of(folder: &Path) -> usize {
    let mark = format!("CORREIO_LAB_NODE={}", folder.display()).into_bytes();
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read(process.path().join("environ")).ok())
        .filter(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
        .count()
}
