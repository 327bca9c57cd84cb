//! Where our programs are: beside this one, built now if cargo runs us.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::LessonError;

/// The folder in which `producer`, `consumer` and `broker` lie.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Finds the programs beside this one. Run by cargo, it builds them first, so that they are never older than the
    /// demo.
    ///
    /// # Errors
    ///
    /// [`LessonError::NotBuilt`] when one is not there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a build that is under way is ended.
    pub async fn ready() -> Result<Self, LessonError> {
        let own = env::current_exe().map_err(LessonError::file("find", "the running program"))?;
        let own_folder = own.parent().unwrap_or(Path::new("."));
        // A test lies one folder below the programs.
        let tests = own_folder.ends_with("deps");
        let folder = if tests { own_folder.parent().unwrap_or(own_folder) } else { own_folder }.to_owned();
        if let (Some(cargo), Some(package)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR")) {
            build(Path::new(&cargo), &Path::new(&package).join("../Cargo.toml"), &folder).await?;
        }
        let programs = Self { folder };
        for name in NAMES {
            let path = programs.path(name);
            if !path.is_file() {
                let why = format!("the program `{name}` is not there as {}", path.display());
                return Err(LessonError::NotBuilt { why });
            }
        }
        Ok(programs)
    }

    /// Where the program of this name is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }
}

async fn build(cargo: &Path, manifest: &Path, folder: &Path) -> Result<(), LessonError> {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--manifest-path"]).arg(manifest);
    command.args(NAMES.iter().flat_map(|name| ["--bin", name]));
    // The profile whose folder we lie in.
    match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let not_built = |why| LessonError::NotBuilt { why };
    let status = timeout(BUILT, command.status())
        .await
        .map_err(|_| not_built(format!("building the programs took more than {BUILT:?}")))?
        .map_err(|error| not_built(format!("cargo cannot be run: {error}")))?;
    if status.success() { Ok(()) } else { Err(not_built(format!("cargo build ended with {status}"))) }
}

const NAMES: [&str; 3] = ["producer", "consumer", "broker"];
/// A build from nothing on a slow machine.
const BUILT: Duration = Duration::from_secs(30 * 60);
