//! Free ports on 127.0.0.1.
//!
//! They lie below the range from which systems take the ports of outgoing connections: there, a client that keeps
//! trying to reach a killed node could end up connected to itself, and the restarted node would find its port taken.

use super::LabError;
use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

/// A port that nobody listens on, and that this process has not handed out before.
pub(crate) fn free_port() -> Result<u16, LabError> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Random, so that two processes that start at once rarely ask for the same one.
    let start = (Uuid::now_v7().as_u128() % u128::from(LAST - FIRST)) as u16;
    for step in 0..LAST - FIRST {
        let port = FIRST + (start + step) % (LAST - FIRST);
        if !taken.contains(&port) && is_free(port) {
            taken.insert(port);
            return Ok(port);
        }
    }
    Err(LabError::NoFreePort { from: FIRST, to: LAST })
}

/// Whether a listener could be opened there now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
const FIRST: u16 = 20_000;
const LAST: u16 = 30_000;
