//! The examples do what they say, on the broker as we ship it.

use std::{path::Path, time::Duration};

use correio_lab::broker::{Login, Node, for_each};
use correio_tests::programs::Program;
use nix::sys::signal::Signal;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_sent_one_by_one_and_many_at_once_and_counted() {
    for_each(async |node| {
        let _turn = ORDERS.lock().await;
        let example = |name: &str, login| Program::new(name).env("AMQP_URL", node.amqp_url(login)).finish(PATIENCE);
        let one = example("send_one", Login::Producer).await;
        assert!(one.stdout.contains("order 1 is on the queue"), "{one}");
        let many = example("send_many", Login::Producer).await;
        assert!(many.stdout.contains("10000 confirmed, 0 not"), "{many}");
        let counted = example("count_orders", Login::Consumer).await;
        assert!(counted.stdout.contains("10003 pieces in all"), "{}", counted.stderr);
        assert!(counted.stdout.contains("10001 handled, 0 duplicates, 0 dead"), "{}", counted.stderr);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_have_the_replies_of_a_command() {
    for_each(async |node| {
        // On a queue of the same name as in its comment, which the other example fills: they take turns.
        let _turn = ORDERS.lock().await;
        let service = Program::new("consumer")
            .args(["run", "--from", "orders", "--exec", "tr a-z A-Z"])
            .env("AMQP_URL", node.amqp_url(Login::Consumer))
            .start();
        let asking = Program::new("request").env("AMQP_URL", node.amqp_url(Login::Producer)).finish(PATIENCE).await;
        // In good order: what it has replied to is acknowledged, and nothing is left for the other example.
        service.signal(Signal::SIGTERM);
        let service = service.finish(PATIENCE).await;
        assert_eq!(service.code, Some(0), "{service}");
        assert!(asking.stdout.contains("7: HOW MUCH IS ORDER 7?"), "{asking}");
        assert!(asking.stdout.contains("100 of 100 have a reply"), "{asking}");
    })
    .await;
}

/// Orders 1 to 1000 are sent twice, each under one id; one more is sent once, under an id of its own.
#[tokio::test(flavor = "multi_thread")]
async fn each_order_has_one_booking_although_it_was_sent_twice_and_the_program_is_killed_in_the_middle() {
    for_each(async |node| {
        let _turn = ORDERS.lock().await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("orders.db");
        make_bookings_slow(&file).await;
        let orders: String = (1..=1000).map(|number| format!("{{\"number\":{number},\"pieces\":1}}\n")).collect();
        for _ in 0..2 {
            send(node, &["--id-field", "number"], &orders).await;
        }
        send(node, &[], "{\"number\":1001,\"pieces\":1}\n").await;
        let example = || {
            let url = node.amqp_url(Login::Consumer);
            Program::new("exactly_once").args([&file]).env("AMQP_URL", url).start()
        };

        let killed = example();
        until("a booking", async || count(&file, "*").await > 0).await;
        killed.kill().await;
        let before = count(&file, "*").await;
        assert!(before < 1001, "killed in the middle, not after {before} bookings");

        let second = example();
        until("all bookings", async || count(&file, "DISTINCT number").await == 1001).await;
        until("an empty queue", async || node.queue_depth("orders").await.expect("the queue") == 0).await;
        // In good order: what it holds is acknowledged, and nothing is left for the other examples.
        second.signal(Signal::SIGINT);
        let second = second.finish(PATIENCE).await;
        assert_eq!(second.code, Some(0), "{second}");
        assert!(second.stdout.contains("1001 bookings in"), "one for each order: {second}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_is_parked_with_its_reason_and_handled_when_it_is_replayed_after_the_repair() {
    for_each(async |node| {
        let _turn = ORDERS.lock().await;
        send(node, &[], "{\"number\":1,\"pieces\":3}\n{\"number\":2,\"pieces\":500}\n").await;
        let run = |name: &str, args: &[&str]| {
            Program::new(name).args(args).env("AMQP_URL", node.amqp_url(Login::Consumer)).finish(PATIENCE)
        };
        let reason = "order 2: no parcel holds 500 pieces";
        let poisoned = run("poison_message", &[]).await;
        assert!(poisoned.stdout.contains("order 1 is packed on attempt 1\n"), "{poisoned}");
        assert!(poisoned.stdout.contains("1 handled, 2 retried, 1 dead"), "{poisoned}");
        let listed = run("consumer", &["dead-letters", "list", "--from", "orders", "--each"]).await;
        assert!(listed.stdout.contains(reason), "{listed}");
        let repaired = run("poison_message", &["repaired"]).await;
        for said in [
            &format!("dead, failed: {reason}\n1 replayed\n"),
            "order 2 is packed on attempt 1, in 5 parcels\n",
            "1 handled, 0 retried, 0 dead",
        ] {
            assert!(repaired.stdout.contains(said), "{said}: {repaired}");
        }
        assert_eq!(node.queue_depth("orders.dead").await.expect("the queue"), 0, "replayed letters are parked no more");
    })
    .await;
}

async fn send(node: &Node, args: &[&str], lines: &str) {
    let producer = Program::new("producer")
        .args(["send", "--to", "orders", "--type", "order.placed"])
        .args(args)
        .env("AMQP_URL", node.amqp_url(Login::Producer))
        .stdin(lines);
    let sent = producer.finish(PATIENCE).await;
    assert_eq!(sent.code, Some(0), "{sent}");
}

/// The table of the example, in which each booking takes a while: so that a kill comes in the middle.
async fn make_bookings_slow(file: &Path) {
    let mut connection = open(file).await.expect("a database");
    let table = "CREATE TABLE bookings (number INTEGER, pieces INTEGER);
        CREATE TRIGGER slow AFTER INSERT ON bookings BEGIN
            SELECT count(*) FROM (
                WITH RECURSIVE steps (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM steps WHERE n < 2000) SELECT n FROM steps
            );
        END;";
    sqlx::raw_sql(table).execute(&mut connection).await.expect("a table");
    connection.close().await.expect("closed");
}

async fn count(file: &Path, what: &str) -> i64 {
    let mut connection = open(file).await.expect("the database");
    let query = sqlx::AssertSqlSafe(format!("SELECT count({what}) FROM bookings"));
    let count = sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("a count");
    connection.close().await.expect("closed");
    count
}

async fn open(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let wal = sqlx::sqlite::SqliteJournalMode::Wal;
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true).journal_mode(wal);
    SqliteConnection::connect_with(&options.busy_timeout(Duration::from_secs(10))).await
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come in {PATIENCE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Each example has the queue for itself.
static ORDERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
