//! Every log of handled messages keeps the same promises: `correio_tests::handled_logs` lists them.

use std::{sync::Arc, time::Duration};

use correio_consumer::{MemoryLog, SqliteLog};
use correio_tests::handled_logs::{self, Opening, Place};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// One log, as there is no other place that shares a process's memory.
#[derive(Default)]
struct Memory(OnceCell<Arc<MemoryLog>>);

impl Place for Memory {
    fn open(&self, retention: Duration) -> Opening<'_> {
        Box::pin(async move {
            let log = self.0.get_or_init(|| async { Arc::new(MemoryLog::new(10_000.try_into().unwrap(), retention)) });
            Arc::clone(log.await) as _
        })
    }
}

struct Folder(TempDir);

impl Place for Folder {
    fn open(&self, retention: Duration) -> Opening<'_> {
        let builder = SqliteLog::builder(self.0.path().join("handled.db")).retention(retention);
        Box::pin(async move { Arc::new(builder.open().await.unwrap()) as _ })
    }
}

async fn memory() -> Memory {
    Memory::default()
}

async fn sqlite() -> Folder {
    Folder(tempfile::tempdir().unwrap())
}

macro_rules! promises {
    ($($place:ident: $($promise:ident)*;)*) => {
        $(mod $place { $(
            #[tokio::test]
            async fn $promise() {
                super::handled_logs::$promise(&super::$place().await).await;
            }
        )* })*
    };
}

macro_rules! in_every_place {
    ($($promise:ident)*) => {
        promises! {
            memory: $($promise)*;
            sqlite: $($promise)* cleaning_up_keeps_what_is_wanted a_log_that_is_opened_again_remembers;
        }
    };
}

in_every_place! {
    fresh_once_then_in_flight_then_handled
    a_failed_message_is_fresh_again
    told_twice_is_told_once
    a_lease_that_is_over_is_taken_over
    work_that_was_done_is_remembered
    a_claim_made_again_has_a_new_lease
    groups_and_origins_are_kept_apart
    ids_are_told_apart_as_texts
    a_fence_is_any_number
    each_of_a_batch_has_its_own_answer
    an_id_is_forgotten_after_its_retention
    two_logs_know_the_same
    of_many_at_once_exactly_one_claims_an_id
}
