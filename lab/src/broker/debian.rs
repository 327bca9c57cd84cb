//! RabbitMQ from the packages of this Debian or Ubuntu: unpacked under `target/lab`, and started from there.
//!
//! What Debian's Erlang knows of its own place (two start scripts) is corrected.

use super::{LabError, server::Programs};
use crate::fetched;
use std::{fs, path::Path};

/// The unpacked server, unpacked now if it is not there yet. Two processes that want it at once wait for each other.
pub(crate) async fn unpacked() -> Result<Programs, LabError> {
    let home = fetched::once("debian-rabbitmq", async |part| {
        let root = fetched::unpack("rabbitmq-server", part).await?;
        correct_erlang(&root.join("usr/lib/erlang"))
    });
    Ok(programs_in(&home.await?.join("root")))
}

fn programs_in(root: &Path) -> Programs {
    let bin = root.join("usr/lib/rabbitmq/bin");
    let word = |name: &str| bin.join(name).to_string_lossy().into_owned();
    Programs {
        server: vec![word("rabbitmq-server")],
        ctl: vec![word("rabbitmqctl")],
        environment: fetched::environment(root, "usr/lib/erlang/bin"),
    }
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
