//! Nothing is left behind, whatever happens to the program that started a node, a server or a small disk.

use correio_lab::{
    broker::{Brokers, Login, NodeOptions},
    postgres::Postgres,
    small_disk::SmallDisk,
};
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

/// Not a test by itself either.
#[tokio::test]
async fn a_program_that_holds_a_database() {
    if std::env::var_os("LAB_TEST_HOLD_A_DATABASE").is_none() {
        return;
    }
    let server = Postgres::start().await.expect("a server");
    // Processes that stand still cannot notice that the first of them is gone.
    server.pause().await.expect("paused");
    println!("\nholding {}", server.url());
    std::future::pending::<()>().await;
}

/// Nor this one.
#[tokio::test]
async fn a_program_that_holds_a_disk() {
    if std::env::var_os("LAB_TEST_HOLD_A_DISK").is_none() {
        return;
    }
    let disk = SmallDisk::of(1024 * 1024).await.expect("a disk");
    disk.fill().expect("filled");
    println!("\nholding {}", disk.path().display());
    std::future::pending::<()>().await;
}

#[test]
fn a_program_that_is_killed_leaves_no_process_and_no_folder() {
    let folder = killed_while_it_holds("node", |folder| assert!(left_of(folder) > 0, "the node runs"));
    assert_eq!(left_of(&folder), 0);
}

#[test]
fn a_program_that_is_killed_leaves_no_process_and_no_memory_of_its_paused_database() {
    let mut memory = String::new();
    let folder = killed_while_it_holds("database", |folder| {
        assert!(at_work_in(folder) > 3, "the server runs");
        // Where PostgreSQL notes its piece of System V shared memory: key and number.
        let lock = fs::read_to_string(folder.join("data/postmaster.pid")).expect("it runs");
        memory = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).expect("a number").to_owned();
        assert!(shared_memory().contains(&memory), "{memory} is there");
    });
    assert_eq!(at_work_in(&folder), 0);
    assert!(!shared_memory().contains(&memory), "{memory} is left");
}

#[test]
fn a_program_that_is_killed_leaves_no_small_disk_mounted() {
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("Linux");
    let folder =
        killed_while_it_holds("disk", |folder| assert!(mounts().contains(&*folder.to_string_lossy()), "mounted"));
    assert!(!mounts().contains(&*folder.to_string_lossy()));
}

/// Starts this program so that it holds one, looks at the folder of what it holds, kills it, waits until nothing is left of it, and gives back
/// where that was.
fn killed_while_it_holds(what: &str, look: impl FnOnce(&Path)) -> PathBuf {
    let temporary = own_temporary_folder(what);
    let mut program = Command::new(std::env::current_exe().expect("this program"))
        .args([&format!("program_killed::a_program_that_holds_a_{what}"), "--exact", "--nocapture"])
        .env(format!("LAB_TEST_HOLD_A_{}", what.to_uppercase()), "1")
        // By this the folder of what it holds is found among those of others.
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(program.stdout.take().expect("piped"));
    let held = output.lines().map_while(Result::ok).find(|line| line.starts_with("holding "));
    assert!(held.is_some(), "the program did not get its {what}");
    let folder = only_folder_in(&temporary).expect("it has a folder");
    look(&folder);

    nix::sys::signal::kill(Pid::from_raw(program.id().cast_signed()), Signal::SIGKILL).expect("killed");
    program.wait().expect("gone");

    let deadline = Instant::now() + Duration::from_secs(10);
    while left_of(&folder) > 0 || at_work_in(&folder) > 0 || folder.exists() {
        assert!(
            Instant::now() < deadline,
            "{} and {} left; the folder exists: {}",
            left_of(&folder),
            at_work_in(&folder),
            folder.exists()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_dir(temporary).expect("nothing else was in it");
    folder
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

fn own_temporary_folder(what: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("correio-lab-test-{what}-{}", std::process::id()));
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

/// How many processes work in the folder, whatever they have done to their environment.
fn at_work_in(folder: &Path) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read_link(process.path().join("cwd")).ok())
        // A folder that is gone is followed by "(deleted)".
        .filter(|at| at.to_string_lossy().starts_with(&*folder.to_string_lossy()))
        .count()
}

/// The numbers of all pieces of System V shared memory.
fn shared_memory() -> Vec<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").expect("Linux");
    table.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}
