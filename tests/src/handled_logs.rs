//! What every log of handled messages promises: one suite for all of them.
//!
//! Each function is a sentence of the contract of [`HandledLog`], and is given a [`Place`]: where logs are opened.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use correio_consumer::{Admission, Claim, Fence, HandledId, HandledLog, MessageId, ShortText, Standing};
use tokio::{task::JoinSet, time::Instant};

use Admission::{AlreadyHandled, Fresh, InFlight};
use Standing::{Stood, TakenOver};

/// A database of its own, where logs are opened that share what they know.
pub trait Place: Send + Sync {
    /// Opens one more log here.
    fn open(&self, retention: Duration) -> Opening<'_>;
}

/// A log, soon.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Arc<dyn HandledLog>> + Send + 'a>>;

/// A message is fresh once, then in flight, then handled.
pub async fn fresh_once_then_in_flight_then_handled(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(ask(&*log, &order("1", 1)).await, Fresh);
    assert_eq!(ask(&*log, &order("1", 2)).await, InFlight);
    assert_eq!(handled(&*log, &order("1", 1)).await, Stood);
    assert_eq!(ask(&*log, &order("1", 2)).await, AlreadyHandled);
    assert_eq!(ask(&*log, &order("1", 1)).await, AlreadyHandled, "also for who handled it");
}

/// A message whose handler failed is fresh when it comes back.
pub async fn a_failed_message_is_fresh_again(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(ask(&*log, &order("1", 1)).await, Fresh);
    log.on_abandoned(&[order("1", 1)]).await.unwrap();
    assert_eq!(ask(&*log, &order("1", 2)).await, Fresh);
    log.on_abandoned(&[order("1", 1)]).await.unwrap();
    assert_eq!(ask(&*log, &order("1", 3)).await, InFlight, "a failure told twice frees nobody else's claim");
    assert_eq!(handled(&*log, &order("1", 2)).await, Stood);
    log.on_abandoned(&[order("1", 2)]).await.unwrap();
    assert_eq!(ask(&*log, &order("1", 3)).await, AlreadyHandled, "a late failure forgets nothing that was handled");
}

/// What is told twice, because the answer was lost, is told once.
pub async fn told_twice_is_told_once(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(ask(&*log, &order("1", 1)).await, Fresh);
    assert_eq!(ask(&*log, &order("1", 1)).await, Fresh);
    assert_eq!(handled(&*log, &order("1", 1)).await, Stood);
    assert_eq!(handled(&*log, &order("1", 1)).await, Stood);
    assert_eq!(handled(&*log, &order("1", 2)).await, TakenOver, "it was another's work");
}

/// A claim whose lease is over is taken over, and what its owner says late counts for nothing.
pub async fn a_lease_that_is_over_is_taken_over(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(ask_for(&*log, &order("1", 1), SHORT).await, Fresh);
    until(async || ask(&*log, &order("1", 2)).await == Fresh).await;
    assert_eq!(ask(&*log, &order("1", 3)).await, InFlight);
    log.on_abandoned(&[order("1", 1)]).await.unwrap();
    assert_eq!(ask(&*log, &order("1", 3)).await, InFlight, "its failure frees nothing");
    assert_eq!(handled(&*log, &order("1", 1)).await, TakenOver);
    assert_eq!(ask(&*log, &order("1", 3)).await, InFlight, "its success is not the new owner's");
    assert_eq!(handled(&*log, &order("1", 2)).await, Stood);
    assert_eq!(handled(&*log, &order("1", 1)).await, TakenOver);
}

/// Work that is done past its lease, or without a claim, is remembered when nobody took it over.
pub async fn work_that_was_done_is_remembered(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(ask_for(&*log, &order("1", 1), Duration::ZERO).await, Fresh);
    assert_eq!(handled(&*log, &order("1", 1)).await, Stood);
    assert_eq!(ask(&*log, &order("1", 2)).await, AlreadyHandled);
    assert_eq!(handled(&*log, &order("2", 1)).await, Stood);
    assert_eq!(ask(&*log, &order("2", 2)).await, AlreadyHandled);
}

/// A claim that is made again holds for a lease from then on.
pub async fn a_claim_made_again_has_a_new_lease(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(ask_for(&*log, &order("1", 1), Duration::ZERO).await, Fresh);
    assert_eq!(ask(&*log, &order("1", 1)).await, Fresh);
    assert_eq!(ask(&*log, &order("1", 2)).await, InFlight);
}

/// Two groups, two origins, and none, keep what they handle apart.
pub async fn groups_and_origins_are_kept_apart(place: &dyn Place) {
    let log = place.open(LONG).await;
    let all = [
        ("orders", Some("shop")),
        ("orders", Some("depot")),
        ("orders", Some("")),
        ("orders", None),
        ("audit", Some("shop")),
        ("audit", None),
        ("ordersshop", None),
        ("Orders", Some("shop")),
        ("orders", Some("shop\0")),
    ];
    for (subscription, origin) in all {
        let claim = claim(subscription, origin, "1", 1);
        assert_eq!(ask(&*log, &claim).await, Fresh, "{claim:?}");
        assert_eq!(handled(&*log, &claim).await, Stood);
    }
    let again: Vec<_> = all.iter().map(|(subscription, origin)| claim(subscription, *origin, "1", 2)).collect();
    assert_eq!(log.admit(&again, LONG).await.unwrap(), vec![AlreadyHandled; all.len()]);
}

/// Ids are told apart as their texts are, also where they look like UUIDs.
pub async fn ids_are_told_apart_as_texts(place: &dyn Place) {
    let log = place.open(LONG).await;
    let uuid = "0190b2a4-7c1e-7d3a-9f00-0123456789ab";
    let mut ids = vec![uuid.to_owned(), uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}")];
    ids.extend(
        ["a", "A", "ä", "1", "01", " 1", "1 ", "'; --", "\0", "x\0", "\u{1f4e8}", "\"", "\\"].map(str::to_owned),
    );
    ids.extend([14, 15, 16, 17, 36, 255].map(|length| "x".repeat(length)));
    let claims: Vec<_> = ids.iter().map(|id| order(id, 1)).collect();
    assert_eq!(log.admit(&claims, LONG).await.unwrap(), vec![Fresh; ids.len()]);
    for (done, id) in ids.iter().enumerate() {
        assert_eq!(handled(&*log, &order(id, 1)).await, Stood, "{id:?}");
        let others: Vec<_> = ids.iter().map(|id| order(id, 2)).collect();
        let expected: Vec<_> = (0..ids.len()).map(|n| if n <= done { AlreadyHandled } else { InFlight }).collect();
        assert_eq!(log.admit(&others, LONG).await.unwrap(), expected);
    }
}

/// A fence is any number.
pub async fn a_fence_is_any_number(place: &dyn Place) {
    let log = place.open(LONG).await;
    for fence in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, (1 << 53) + 1] {
        let id = format!("by {fence}");
        assert_eq!(ask(&*log, &order(&id, fence)).await, Fresh);
        assert_eq!(ask(&*log, &order(&id, fence.wrapping_add(1))).await, InFlight);
        assert_eq!(handled(&*log, &order(&id, fence.wrapping_sub(1))).await, TakenOver);
        assert_eq!(ask(&*log, &order(&id, fence)).await, Fresh);
        assert_eq!(handled(&*log, &order(&id, fence)).await, Stood);
    }
}

/// Each message of a batch has its own answer, in the order in which they were asked.
pub async fn each_of_a_batch_has_its_own_answer(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(log.admit(&[], LONG).await.unwrap(), vec![]);
    assert_eq!(log.on_handled(&[]).await.unwrap(), vec![]);
    log.on_abandoned(&[]).await.unwrap();
    // 300 of two sources, in no order; each third handled, each other third in flight.
    let nth =
        |n: u64, fence| claim("orders", [None, Some("shop")][(n % 2) as usize], &(n * 7_919 % 300).to_string(), fence);
    let every = |of: u64| (0..300).filter(|n| n % 3 == of).map(|n| nth(n, 1)).collect::<Vec<_>>();
    assert_eq!(log.on_handled(&every(0)).await.unwrap(), vec![Stood; 100]);
    assert_eq!(log.admit(&every(1), LONG).await.unwrap(), vec![Fresh; 100]);
    let all: Vec<_> = (0..300).map(|n| nth(n, 2)).collect();
    let expected: Vec<_> = (0..300).map(|n| [AlreadyHandled, InFlight, Fresh][n % 3]).collect();
    assert_eq!(log.admit(&all, LONG).await.unwrap(), expected);
    let expected: Vec<_> = (0..300).map(|n| [TakenOver, TakenOver, Stood][n % 3]).collect();
    assert_eq!(log.on_handled(&all).await.unwrap(), expected);
    assert_eq!(log.on_handled(&every(1)).await.unwrap(), vec![Stood; 100]);
    assert_eq!(log.admit(&all, LONG).await.unwrap(), vec![AlreadyHandled; 300]);
}

/// An id is forgotten when its retention is over: cleaned up or not.
pub async fn an_id_is_forgotten_after_its_retention(place: &dyn Place) {
    let log = place.open(SHORT).await;
    assert_eq!(log.retention(), SHORT);
    assert_eq!(handled(&*log, &order("1", 1)).await, Stood);
    until(async || ask(&*log, &order("1", 2)).await == Fresh).await;
    assert_eq!(ask(&*log, &order("1", 3)).await, InFlight, "by its new claim");
    assert_eq!(handled(&*log, &order("1", 1)).await, TakenOver);
    assert_eq!(handled(&*log, &order("2", 1)).await, Stood);
    until(async || handled(&*log, &order("2", 2)).await == Stood).await;
}

/// Cleaning up keeps what is claimed, and what is within its retention.
pub async fn cleaning_up_keeps_what_is_wanted(place: &dyn Place) {
    let log = place.open(SHORT).await;
    assert_eq!(ask(&*log, &order("claimed", 1)).await, Fresh);
    assert_eq!(handled(&*log, &order("old", 1)).await, Stood);
    until(async || ask(&*log, &order("old", 2)).await == Fresh).await;
    clean_up(&*log).await;
    assert_eq!(ask(&*log, &order("claimed", 2)).await, InFlight);
    let log = place.open(LONG).await;
    assert_eq!(handled(&*log, &order("young", 1)).await, Stood);
    clean_up(&*log).await;
    assert_eq!(ask(&*log, &order("young", 2)).await, AlreadyHandled);
}

/// Two logs in one place, as two processes have them, know the same.
pub async fn two_logs_know_the_same(place: &dyn Place) {
    let (one, other) = (place.open(LONG).await, place.open(LONG).await);
    assert_eq!(ask(&*one, &order("1", 1)).await, Fresh);
    assert_eq!(ask(&*other, &order("1", 2)).await, InFlight);
    assert_eq!(handled(&*other, &order("1", 2)).await, TakenOver);
    assert_eq!(handled(&*one, &order("1", 1)).await, Stood);
    assert_eq!(ask(&*other, &order("1", 2)).await, AlreadyHandled);
    // Both meet this origin for the first time.
    assert_eq!(ask(&*one, &claim("orders", Some("new"), "1", 1)).await, Fresh);
    assert_eq!(ask(&*other, &claim("orders", Some("new"), "1", 2)).await, InFlight);
}

/// Of many who claim the same ids at once, each id is fresh to exactly one.
pub async fn of_many_at_once_exactly_one_claims_an_id(place: &dyn Place) {
    let logs = [place.open(LONG).await, place.open(LONG).await, place.open(LONG).await];
    for round in 0..10 {
        let mut asking = JoinSet::new();
        for fence in 0..9u64 {
            let log = Arc::clone(&logs[(fence % 3) as usize]);
            // Each in another order, and of a source that is new in each round.
            let mut claims: Vec<_> =
                (0..40).map(|n| claim("orders", Some(&format!("shop {round}")), &n.to_string(), fence)).collect();
            claims.rotate_left(4 * fence as usize);
            asking.spawn(async move {
                let answers = log.admit(&claims, LONG).await.unwrap();
                let fresh = claims.into_iter().zip(answers).filter(|(_, answer)| *answer == Fresh);
                let fresh: Vec<_> = fresh.map(|(claim, _)| claim).collect();
                assert_eq!(log.on_handled(&fresh).await.unwrap(), vec![Stood; fresh.len()]);
                fresh.into_iter().map(|claim| claim.id.id.to_string()).collect::<Vec<_>>()
            });
        }
        let mut fresh: Vec<String> = asking.join_all().await.into_iter().flatten().collect();
        fresh.sort_unstable();
        let mut expected: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        expected.sort_unstable();
        assert_eq!(fresh, expected);
    }
}

/// A log that is opened again knows what was handled, and what is claimed.
pub async fn a_log_that_is_opened_again_remembers(place: &dyn Place) {
    let log = place.open(LONG).await;
    assert_eq!(handled(&*log, &order("handled", 1)).await, Stood);
    assert_eq!(ask(&*log, &order("claimed", 1)).await, Fresh);
    drop(log);
    let log = place.open(LONG).await;
    assert_eq!(ask(&*log, &order("handled", 2)).await, AlreadyHandled);
    assert_eq!(ask(&*log, &order("claimed", 2)).await, InFlight);
}

/// A claim on a message of the shop to the orders.
#[must_use]
pub fn order(id: &str, fence: u64) -> Claim {
    claim("orders", Some("shop"), id, fence)
}

/// A claim.
///
/// # Panics
///
/// When a text is too long.
#[must_use]
pub fn claim(subscription: &str, origin: Option<&str>, id: &str, fence: u64) -> Claim {
    let id = HandledId {
        subscription: subscription.into(),
        origin: origin.map(|origin| ShortText::new(origin).unwrap()),
        id: MessageId::new(id).unwrap(),
    };
    Claim { id, fence: Fence(fence) }
}

/// Asks for one claim, with a lease that does not end while a test runs.
///
/// # Panics
///
/// When the log fails.
pub async fn ask(log: &dyn HandledLog, claim: &Claim) -> Admission {
    ask_for(log, claim, LONG).await
}

async fn ask_for(log: &dyn HandledLog, claim: &Claim, lease: Duration) -> Admission {
    let answers = log.admit(std::slice::from_ref(claim), lease).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

/// Tells of one claim that its work is done.
///
/// # Panics
///
/// When the log fails.
pub async fn handled(log: &dyn HandledLog, claim: &Claim) -> Standing {
    let standings = log.on_handled(std::slice::from_ref(claim)).await.unwrap();
    assert_eq!(standings.len(), 1);
    standings[0]
}

/// Cleans up to the end.
///
/// # Panics
///
/// When the log fails.
pub async fn clean_up(log: &dyn HandledLog) {
    // What is short means that there is more.
    while log.clean_up().await.unwrap() < Duration::from_secs(1) {}
}

/// Asks again until it is so.
///
/// # Panics
///
/// When it is not so in ten seconds.
pub async fn until(mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so().await {
        assert!(Instant::now() < deadline, "not so in ten seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Does not end while a test runs.
pub const LONG: Duration = Duration::from_secs(3_600);
/// Is soon over, and nothing is asserted within it.
pub const SHORT: Duration = Duration::from_millis(50);
