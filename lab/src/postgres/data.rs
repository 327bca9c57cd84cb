//! The data folder of a new server, and its configuration.
//!
//! `initdb` and the first database cost seconds, a copy of both a tenth of one: they are made once for each version of
//! PostgreSQL, into `target/lab`.

use super::{account::Account, programs::PostgresPrograms};
use crate::{
    broker::{LabError, MARK, ONLY_WHILE_WATCHED, run::run},
    fetched,
};
use std::{ffi::OsStr, fs, path::Path, time::Duration};

/// Makes the folder `data` of a server that never ran.
pub(super) async fn make(programs: &PostgresPrograms, account: Account, folder: &Path) -> Result<(), LabError> {
    let (data, version) = (folder.join("data"), programs.version().await?);
    let template = fetched::once(&format!("postgres-data-{version}"), async |part| {
        // In the server's folder, because the server's user may not come to the other.
        account.own_folder(&data)?;
        initialize(programs, account, folder, &data).await?;
        account.copy(&data, &part.join("data"))
    })
    .await?;
    if data.exists() { Ok(()) } else { account.copy(&template.join("data"), &data) }
}

/// Writes the configuration: all of it, as what is not here is as PostgreSQL has it.
pub(super) fn configure(folder: &Path, port: u16) -> Result<(), LabError> {
    let socket = folder.join("socket");
    // A socket's name may have 107 bytes, and nobody needs it who has TCP.
    let fits = socket.join(".s.PGSQL.65535").as_os_str().len() <= 107;
    let socket = if fits { socket.to_string_lossy().replace('\'', "''") } else { String::new() };
    let settings = format!("port = {port}\nunix_socket_directories = '{socket}'\n{SETTINGS}");
    for (file, text) in [("postgresql.conf", settings.as_str()), ("postgresql.auto.conf", ""), ("pg_hba.conf", ACCESS)]
    {
        let path = folder.join("data").join(file);
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
    }
    Ok(())
}

async fn initialize(programs: &PostgresPrograms, account: Account, folder: &Path, data: &Path) -> Result<(), LabError> {
    let command = |script: &str, program: &str, arguments: &[&OsStr]| {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(script).arg("sh").arg(folder).arg(programs.folder.join(program)).args(arguments);
        environment(&mut command, programs, folder);
        account.apply(&mut command);
        command.current_dir(folder);
        tokio::process::Command::from(command)
    };
    let words = "--username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync --wal-segsize=1 --pgdata";
    let mut arguments: Vec<&OsStr> = words.split(' ').map(OsStr::new).collect();
    arguments.push(data.as_os_str());
    run(&mut command(ONLY_WHILE_WATCHED, "initdb", &arguments), MADE).await?;
    let alone = ["--single".as_ref(), "-F".as_ref(), "-D".as_ref(), data.as_os_str(), "template1".as_ref()];
    run(&mut command(&format!("{FIRST_WORDS} | {{ {ONLY_WHILE_WATCHED}; }}"), "postgres", &alone), MADE).await?;
    Ok(())
}

/// What every program of a server has in its environment: the watchdog's mark, and nothing that the user has set for a
/// server or a client of their own.
pub(super) fn environment(command: &mut std::process::Command, programs: &PostgresPrograms, folder: &Path) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env(MARK, folder).env("LC_ALL", "C").env_remove("TZ");
    command.envs(programs.environment.iter().map(|(name, value)| (name, value)));
}

/// The database that `initdb` makes for everybody becomes ours: another one would be 300 files more to copy.
const FIRST_WORDS: &str = "printf '%s\\n' 'CREATE ROLE correio LOGIN;' 'ALTER DATABASE postgres RENAME TO correio;' \
                           'ALTER DATABASE correio OWNER TO correio;'";

/// `fsync` and its companions stay on: what is tested is that a commit outlasts a crash. Shared memory is in the server's
/// folder, or ends with its processes. `GMT` is the one time zone that needs no files.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_permissions = 0700
max_connections = 50
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = 128MB
autovacuum = on
jit = off
logging_collector = off
log_line_prefix = '%m [%p] '
timezone = 'GMT'
log_timezone = 'GMT'
";

/// Over TCP one user, who owns one database and nothing else: whoever has an account on this machine can come there without a
/// password. The superuser only comes through the socket, whose folder is closed to others.
const ACCESS: &str = "\
local all     all                  trust
host  correio correio 127.0.0.1/32 trust
";

const MADE: Duration = Duration::from_secs(120);
