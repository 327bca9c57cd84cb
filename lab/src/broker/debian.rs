//! RabbitMQ from the packages of this Debian or Ubuntu: downloaded, unpacked into a folder, and started from there.
//!
//! Nothing is installed and no root is needed: `apt-get download` fetches, `dpkg -x` unpacks, and what Debian's Erlang knows
//! of its own place (two start scripts) is corrected. Where the machine's package lists are empty or
//! outdated, lists of our own are fetched beside the folder; the machine's are left alone.

use super::{LabError, place, run::run, server::Programs};
use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::process::Command;

/// The unpacked server, unpacked now if it is not there yet. Two processes that want it at once wait for each other.
pub(crate) async fn unpacked() -> Result<Programs, LabError> {
    let lab = place::for_servers()?;
    let home = lab.join("debian-rabbitmq");
    if !home.is_dir() {
        let _one_at_a_time = lock(&lab.join("debian-rabbitmq.lock")).await?;
        if !home.is_dir() {
            let part = lab.join("debian-rabbitmq.part");
            if part.exists() {
                // What a process left that was killed while it unpacked.
                fs::remove_dir_all(&part).map_err(LabError::file("remove", &part))?;
            }
            if let Err(error) = unpack(&part).await {
                let _ = fs::remove_dir_all(&part);
                return Err(error);
            }
            fs::rename(&part, &home).map_err(LabError::file("rename", &part))?;
        }
    }
    Ok(programs_in(&home))
}

fn programs_in(home: &Path) -> Programs {
    let root = home.join("root");
    let bin = root.join("usr/lib/rabbitmq/bin");
    let word = |name: &str| bin.join(name).to_string_lossy().into_owned();
    let mut environment = vec![("PATH".to_owned(), before("PATH", &[root.join("usr/lib/erlang/bin")]))];
    let libraries = library_folders(&root);
    if !libraries.is_empty() {
        environment.push(("LD_LIBRARY_PATH".to_owned(), before("LD_LIBRARY_PATH", &libraries)));
    }
    Programs { server: vec![word("rabbitmq-server")], ctl: vec![word("rabbitmqctl")], environment }
}

async fn unpack(part: &Path) -> Result<(), LabError> {
    let (packages, root) = (part.join("packages"), part.join("root"));
    for folder in [&packages, &root] {
        fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    }
    if let Err(first) = download(&Apt::of_the_machine(), &packages).await {
        tracing::info!(%first, "the machine's package lists did not do; fetching lists of our own");
        let apt = Apt::of_our_own(&part.join("apt"))?;
        // Without the option, lists that do not come are a warning.
        run(&mut apt.get(&["-o", "APT::Update::Error-Mode=any", "update"]), LISTS_COME).await?;
        download(&apt, &packages).await?;
    }
    let entries = fs::read_dir(&packages).map_err(LabError::file("read", &packages))?;
    for package in entries.filter_map(Result::ok).filter(|file| file.path().extension().is_some_and(|end| end == "deb"))
    {
        run(Command::new("dpkg").arg("-x").arg(package.path()).arg(&root), UNPACKED).await?;
    }
    correct_erlang(&root.join("usr/lib/erlang"))?;
    for spent in [packages, part.join("apt")].iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(spent).map_err(LabError::file("remove", spent))?;
    }
    Ok(())
}

async fn download(apt: &Apt, into: &Path) -> Result<(), LabError> {
    let wanted = packages_wanted(apt).await?;
    let mut command = apt.get(&["download"]);
    run(command.args(wanted).current_dir(into), PACKAGES_COME).await.map(drop)
}

/// `rabbitmq-server`, every Erlang package that it needs, and the libraries of those that this machine lacks.
async fn packages_wanted(apt: &Apt) -> Result<BTreeSet<String>, LabError> {
    let mut wanted = BTreeSet::new();
    let mut open = vec!["rabbitmq-server".to_owned()];
    while !open.is_empty() {
        let mut query = apt.cache(&["depends", "--important"]);
        let answer = run(query.args(&open), APT_ANSWERS).await?;
        wanted.extend(open.drain(..));
        for name in needed(&answer) {
            if !wanted.contains(&name) && !open.contains(&name) && (is_erlang(&name) || !is_installed(&name).await) {
                open.push(name);
            }
        }
    }
    Ok(wanted)
}

/// The Erlang packages and libraries in the output of `apt-cache depends`; of alternatives the first.
fn needed(answer: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut chosen = false;
    for line in answer.lines() {
        let Some((sign, name)) = line.split_once("Depends: ") else { continue };
        let name = name.trim().split(':').next().unwrap_or_default();
        // The C library and its loader fit each other and are always there.
        let ours = is_erlang(name)
            || ((name.starts_with("lib") || name == "zlib1g") && !name.starts_with("libc6") && name != "libgcc-s1");
        if ours && !chosen {
            names.insert(name.to_owned());
        }
        // `|Depends` says that the next line is an alternative to this one.
        chosen = sign.trim_end().ends_with('|') && (chosen || !name.starts_with('<'));
    }
    names
}

fn is_erlang(name: &str) -> bool {
    name.starts_with("erlang-")
}

async fn is_installed(name: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", name]);
    run(&mut query, APT_ANSWERS)
        .await
        .is_ok_and(|status| status.contains("installed") && !status.contains("not-installed"))
}

/// Erlang's start scripts name the folder that Debian puts them in; here they look where they lie themselves.
fn correct_erlang(erlang: &Path) -> Result<(), LabError> {
    let runtime = fs::read_dir(erlang)
        .map_err(LabError::file("read", erlang))?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("erts-"))
        .map(|entry| entry.path().join("bin/erl"));
    for (script, up) in [(Some(erlang.join("bin/erl")), ".."), (runtime, "../..")] {
        let Some(script) = script else { continue };
        let text = fs::read_to_string(&script).map_err(LabError::file("read", &script))?;
        let own_place = format!(r#"ROOTDIR=$(cd "$(dirname "$(readlink -f "$0")")/{up}" && pwd)"#);
        let text = text.replace("ROOTDIR=/usr/lib/erlang", &own_place);
        fs::write(&script, text).map_err(LabError::file("write", &script))?;
    }
    Ok(())
}

/// The folders of shared libraries in an unpacked root: `lib/x86_64-linux-gnu` and its like.
fn library_folders(root: &Path) -> Vec<PathBuf> {
    ["usr/lib", "lib"]
        .iter()
        .filter_map(|lib| fs::read_dir(root.join(lib)).ok())
        .flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()))
        .filter(|path| path.is_dir() && path.to_string_lossy().contains("-linux-"))
        .collect()
}

fn before(variable: &str, folders: &[PathBuf]) -> OsString {
    let present = env::var_os(variable).unwrap_or_default();
    let rest = env::split_paths(&present).filter(|path| !path.as_os_str().is_empty());
    env::join_paths(folders.iter().cloned().chain(rest)).unwrap_or(present)
}

/// Waits for the lock without blocking a thread of the runtime. It is released when the file is closed, also by a crash.
async fn lock(path: &Path) -> Result<File, LabError> {
    let file = File::create(path).map_err(LabError::file("create", path))?;
    let deadline = Instant::now() + PACKAGES_COME;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(LOOK_AGAIN).await,
            Err(TryLockError::WouldBlock) => {
                return Err(LabError::timed_out("waiting for another process to unpack RabbitMQ", PACKAGES_COME));
            }
            Err(TryLockError::Error(source)) => return Err(LabError::file("lock", path)(source)),
        }
    }
}

/// apt with the machine's package lists, or with lists of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn of_the_machine() -> Self {
        Self { options: Vec::new() }
    }

    fn of_our_own(folder: &Path) -> Result<Self, LabError> {
        for inner in ["lists/partial", "archives/partial"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).map_err(LabError::file("create", &path))?;
        }
        let folder = folder.display();
        Ok(Self { options: vec![format!("Dir::State::Lists={folder}/lists"), format!("Dir::Cache={folder}")] })
    }

    fn get(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("apt-get");
        // Without this, root's apt would fetch as the user `_apt`, which may not write into our folder.
        command.args(["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1", "-q"]).args(arguments);
        command
    }

    fn cache(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("apt-cache");
        command.args(arguments);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }
}

const APT_ANSWERS: Duration = Duration::from_secs(30);
const LISTS_COME: Duration = Duration::from_secs(180);
const PACKAGES_COME: Duration = Duration::from_secs(300);
const UNPACKED: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn erlang_and_libraries_are_taken_and_of_alternatives_the_first() {
        let answer = "rabbitmq-server\n  Depends: adduser\n |Depends: erlang-base\n  Depends: erlang-base-hipe\n  \
                      Depends: erlang-ssl\n  PreDepends: libssl3t64\n  Depends: libc6\n  Depends: <python3:any>\n    python3\n";
        assert_eq!(needed(answer).into_iter().collect::<Vec<_>>(), ["erlang-base", "erlang-ssl", "libssl3t64"]);
    }

    #[test]
    fn an_alternative_that_does_not_exist_gives_way_to_the_next() {
        let answer = "x\n |Depends: <erlang-base-hipe>\n  Depends: erlang-base\n  Depends: zlib1g\n";
        assert_eq!(needed(answer).into_iter().collect::<Vec<_>>(), ["erlang-base", "zlib1g"]);
    }
}
