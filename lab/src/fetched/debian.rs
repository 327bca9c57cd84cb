//! Packages of this Debian or Ubuntu: downloaded, unpacked into a folder, and run from there.
//!
//! Nothing is installed and no root is needed: `apt-get download` fetches, `dpkg -x` unpacks. Where the machine's package
//! lists are empty or outdated, lists of our own are fetched beside the folder; the machine's are left alone.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use super::once;
use crate::broker::{LabError, run::run};

/// The folder in which a package lies unpacked (its `usr/bin` and so on), unpacked now if it is not there yet.
///
/// # Errors
///
/// When it cannot be downloaded or unpacked.
///
/// # Cancel safety
///
/// As [`once`].
pub async fn package(name: &str) -> Result<PathBuf, LabError> {
    let home = once(&format!("debian-{name}"), async |part| unpack(name, part).await.map(drop)).await?;
    Ok(home.join("root"))
}

/// What programs of an unpacked package need in their environment: its programs on the path, and its libraries.
#[must_use]
pub fn environment(root: &Path, programs: &str) -> Vec<(String, OsString)> {
    let mut environment = vec![("PATH".to_owned(), before("PATH", &[root.join(programs)]))];
    let libraries = library_folders(root);
    if !libraries.is_empty() {
        environment.push(("LD_LIBRARY_PATH".to_owned(), before("LD_LIBRARY_PATH", &libraries)));
    }
    environment
}

/// Unpacks a package, with what it needs that this machine lacks, into `part/root`, and gives that back.
pub(crate) async fn unpack(package: &str, part: &Path) -> Result<PathBuf, LabError> {
    let (packages, root) = (part.join("packages"), part.join("root"));
    for folder in [&packages, &root] {
        fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    }
    if let Err(first) = download(package, &Apt::of_the_machine(), &packages).await {
        tracing::info!(%first, "the machine's package lists did not do; fetching lists of our own");
        let apt = Apt::of_our_own(&part.join("apt"))?;
        // Without the option, lists that do not come are a warning.
        run(&mut apt.get(&["-o", "APT::Update::Error-Mode=any", "update"]), LISTS_COME).await?;
        download(package, &apt, &packages).await?;
    }
    let entries = fs::read_dir(&packages).map_err(LabError::file("read", &packages))?;
    for package in entries.filter_map(Result::ok).filter(|file| file.path().extension().is_some_and(|end| end == "deb"))
    {
        run(Command::new("dpkg").arg("-x").arg(package.path()).arg(&root), UNPACKED).await?;
    }
    for spent in [packages, part.join("apt")].iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(spent).map_err(LabError::file("remove", spent))?;
    }
    Ok(root)
}

async fn download(package: &str, apt: &Apt, into: &Path) -> Result<(), LabError> {
    let wanted = packages_wanted(package, apt).await?;
    let mut command = apt.get(&["download"]);
    run(command.args(wanted).current_dir(into), PACKAGES_COME).await.map(drop)
}

/// The package, every Erlang and PostgreSQL package that it needs, and the libraries of those that this machine lacks.
async fn packages_wanted(package: &str, apt: &Apt) -> Result<BTreeSet<String>, LabError> {
    let mut wanted = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while !open.is_empty() {
        let mut query = apt.cache(&["depends", "--important"]);
        let answer = run(query.args(&open), APT_ANSWERS).await?;
        wanted.extend(open.drain(..));
        for name in needed(&answer) {
            if !wanted.contains(&name) && !open.contains(&name) && (is_program(&name) || !is_installed(&name).await) {
                open.push(name);
            }
        }
    }
    Ok(wanted)
}

/// The Erlang and PostgreSQL packages and the libraries in the output of `apt-cache depends`; of alternatives the first.
fn needed(answer: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut chosen = false;
    for line in answer.lines() {
        let Some((sign, name)) = line.split_once("Depends: ") else { continue };
        let name = name.trim().split(':').next().unwrap_or_default();
        // The C library and its loader fit each other and are always there. LLVM is a hundred megabytes, for a PostgreSQL that
        // compiles its queries, which the lab's does not.
        let not_ours = name.starts_with("libc6") || name == "libgcc-s1" || name.starts_with("libllvm");
        let ours = is_program(name) || ((name.starts_with("lib") || name == "zlib1g") && !not_ours);
        if ours && !chosen {
            names.insert(name.to_owned());
        }
        // `|Depends` says that the next line is an alternative to this one.
        chosen = sign.trim_end().ends_with('|') && (chosen || !name.starts_with('<'));
    }
    names
}

/// Whether a package is taken also where it is installed: Erlang, and the server (`postgresql-15`) that `postgresql` stands for.
fn is_program(name: &str) -> bool {
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name.starts_with("erlang-") || name.strip_prefix("postgresql-").is_some_and(is_number)
}

async fn is_installed(name: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", name]);
    run(&mut query, APT_ANSWERS)
        .await
        .is_ok_and(|status| status.contains("installed") && !status.contains("not-installed"))
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
    fn of_postgresql_the_server_of_this_release_is_taken_without_its_compiler_and_clients() {
        assert_eq!(needed("postgresql\n  Depends: postgresql-15\n").into_iter().collect::<Vec<_>>(), ["postgresql-15"]);
        let answer = "postgresql-15\n |Depends: locales\n  Depends: locales-all\n  Depends: postgresql-client-15\n  \
                      Depends: postgresql-common\n  Depends: libllvm14\n  Depends: libpq5\n";
        assert_eq!(needed(answer).into_iter().collect::<Vec<_>>(), ["libpq5"]);
    }

    #[test]
    fn an_alternative_that_does_not_exist_gives_way_to_the_next() {
        let answer = "x\n |Depends: <erlang-base-hipe>\n  Depends: erlang-base\n  Depends: zlib1g\n";
        assert_eq!(needed(answer).into_iter().collect::<Vec<_>>(), ["erlang-base", "zlib1g"]);
    }
}
