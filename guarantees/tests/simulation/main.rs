//! The confirm window and its resends, against a broker that cuts, nacks, returns, reorders and says nothing.
//!
//! A history is played from one seed: callers hand in messages (`history.rs`), the shell drives the window as the
//! producer's publishing channel does (`shell.rs`), the client library and the broker do what they do or may do
//! (`client.rs`, `broker.rs`), and the ledger judges by the laws of `law.rs`. Left out is what does not touch the window:
//! the numbers of keyed messages, requests that expire before they are sent.
//!
//! A failing history prints its seed and what happened in it. To play one again:
//! `CORREIO_SEED=… cargo test -p correio-guarantees --test simulation every_message`

mod broker;
mod chance;
mod client;
mod faults;
mod history;
mod lane;
mod law;
mod ledger;
mod machine;
mod numbers;
mod seen;
mod shell;
#[path = "../support/mod.rs"]
mod support;
mod tampered;
mod world;

use std::{
    env, panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use correio_guarantees::ConfirmWindow;
use faults::PLANTED;
use history::{Told, Watch, play};
use law::Law;
use seen::{Seen, Sight};
use tampered::Tampered;
use world::Trace;

#[test]
fn every_message_has_one_outcome_no_confirmed_is_false_and_each_key_keeps_its_order() {
    if let Ok(seed) = env::var("CORREIO_SEED") {
        let seed = seed.parse().expect("CORREIO_SEED is a whole number");
        return replay(seed);
    }
    let histories = histories();
    let seen = play_all(histories);
    for sight in Sight::ALL {
        let often = seen.count(sight);
        println!("{sight:?}: {often}");
        assert!(often >= histories / 200, "{sight:?} was seen {often} times in {histories} histories");
    }
}

#[test]
fn a_machine_that_breaks_one_law_is_found_by_that_law() {
    let find = |fault, watch| {
        (0..FAULT_HISTORIES).find_map(|seed| {
            let told = play(seed, watch, |limits| Tampered::new(fault, limits));
            told.broken.map(|broken| (seed, broken))
        })
    };
    for (fault, law) in PLANTED {
        let Some((seed, broken)) = find(fault, Watch { only: Some(law), trace: Trace::Off }) else {
            panic!("{fault:?} was not seen to break {law:?} in {FAULT_HISTORIES} histories");
        };
        println!("{fault:?} breaks {law:?} in history {seed}: {}", broken.what);
        let (first, broken) = find(fault, Watch::default()).expect("one of all laws is broken if that one is");
        println!("    and first {:?} in history {first}: {}", broken.law, broken.what);
        assert!(first <= seed);
    }
    for law in Law::ALL {
        assert!(PLANTED.iter().any(|(_, broken)| *broken == law), "no fault is planted against {law:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    let watch = Watch { trace: Trace::Kept, only: None };
    for seed in 0..20 {
        assert_eq!(play_true(seed, watch).trace, play_true(seed, watch).trace, "seed {seed}");
    }
    assert_ne!(play_true(0, watch).trace, play_true(1, watch).trace);
}

/// Plays the histories of the seeds below this with the true machine, on as many threads as there are cores.
fn play_all(histories: u64) -> Seen {
    let next = AtomicU64::new(0);
    let work = || {
        let mut seen = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= histories {
                return seen;
            }
            match panic::catch_unwind(|| play_true(seed, Watch::default())) {
                Ok(told) if told.broken.is_none() => seen.add(&told.seen),
                _ => {
                    // The other threads stop.
                    next.store(histories, Ordering::Relaxed);
                    replay(seed);
                    panic!("seed {seed} went wrong once and not again");
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut seen = Seen::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => seen.add(&part),
                Err(cause) => panic::resume_unwind(cause),
            }
        }
        seen
    })
}

fn play_true(seed: u64, watch: Watch) -> Told {
    play(seed, watch, ConfirmWindow::new)
}

/// Plays a history again and prints it.
fn replay(seed: u64) {
    println!("CORREIO_SEED={seed}");
    let told = play_true(seed, Watch { trace: Trace::Printed, only: None });
    if let Some(broken) = told.broken {
        panic!("seed {seed} breaks {:?}: {}", broken.law, broken.what);
    }
}

/// 100,000 where the scaled counts are asked for, which is what CI does.
fn histories() -> u64 {
    match env::var("CORREIO_SCALE").as_deref() {
        Ok("full") => 1_000_000,
        Ok(_) => 100_000,
        Err(_) => 10_000,
    }
}

/// A fault that needs more than these is one that the simulation does not look for.
const FAULT_HISTORIES: u64 = 2_000;
