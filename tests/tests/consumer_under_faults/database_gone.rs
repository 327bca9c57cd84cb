//! The database of the handled log goes away, or its disk is full: handling stops, nothing is lost, no message is blamed, and
//! everything goes on by itself.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    time::Duration,
};

use correio_lab::{
    broker::{NodeOptions, for_each_own},
    postgres::Postgres,
    small_disk::SmallDisk,
};
use correio_tests::{effects::Effects, scale};
use sqlx::{Connection, SqliteConnection};
use tokio::{process::Command, time::sleep};

use crate::journey::{Journey, Kind, databases};

/// A message that is blamed for the database's fault is parked, and its effect missing.
const BLAMES: &[&str] = &["--retries", "0"];

fn away() -> Duration {
    Duration::from_secs(scale::of(30, 5))
}

/// Sends some, makes the database go away in the middle of it, sends more, has it come back, and waits for the end.
async fn without_it_for_a_while<T>(
    mut journey: Journey<'_>,
    goes: impl AsyncFnOnce() -> T,
    comes: impl AsyncFnOnce(T),
) {
    let flights = scale::of(20_000, 20);
    journey.send_until(flights / 4).await;
    journey.until_effects(flights / 8).await;
    let gone = goes().await;
    journey.send_until(flights / 2).await;
    // Not a hope: this is how long it is away.
    sleep(away()).await;
    comes(gone).await;
    journey.send_until(flights).await;
    println!("{:?}", journey.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_server_that_is_killed_and_comes_back_costs_no_message_and_blames_none() {
    for_each_own(NodeOptions::default(), async |node| {
        // Of this journey's own: it is killed.
        let (server, _) = databases().await;
        let database = Kind::Postgres.fresh(&server).await;
        let journey = Journey::begin(node, &database.effects, BLAMES).await;
        without_it_for_a_while(
            journey,
            async || server.kill().await.expect("killed"),
            async |()| server.start_again().await.expect("started again"),
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_else_has_locked_stops_handling_until_it_is_free() {
    let (server, _) = databases().await;
    for_each_own(NodeOptions::default(), async |node| {
        let database = Kind::Sqlite.fresh(&server).await;
        let journey = Journey::begin(node, &database.effects, BLAMES).await;
        let file = format!("sqlite:{}", database.effects.database);
        without_it_for_a_while(
            journey,
            async || {
                let mut connection = SqliteConnection::connect(&file).await.expect("a connection");
                sqlx::raw_sql("PRAGMA busy_timeout = 60000; BEGIN EXCLUSIVE")
                    .execute(&mut connection)
                    .await
                    .expect("locked");
                connection
            },
            async |connection| connection.close().await.expect("closed"),
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_handling_until_there_is_room() {
    for_each_own(NodeOptions::default(), async |node| {
        let disk = SmallDisk::of(32 * 1024 * 1024).await.expect("a small disk");
        let effects = Effects::in_sqlite(&disk.path().join("effects.db")).await;
        let journey = Journey::begin(node, &effects, BLAMES).await;
        without_it_for_a_while(journey, async || disk.fill().expect("filled"), async |()| disk.free().expect("freed"))
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_server_whose_disk_is_full_stops_handling_until_there_is_room() {
    for_each_own(NodeOptions::default(), async |node| {
        let (server, _) = databases().await;
        let disk = SmallDisk::of(96 * 1024 * 1024).await.expect("a small disk");
        move_tables(&server, &disk).await;
        let database = Kind::Postgres.fresh(&server).await;
        let journey = Journey::begin(node, &database.effects, BLAMES).await;
        without_it_for_a_while(journey, async || disk.fill().expect("filled"), async |()| disk.free().expect("freed"))
            .await;
        let log = fs::read_to_string(server.folder().join("console")).expect("a log");
        assert!(log.contains("No space left on device"), "its disk was never full: {log}");
        server.close().await.expect("closed");
    })
    .await;
}

/// Puts the tables of a server on a disk of their own; its write-ahead log stays where it is.
async fn move_tables(server: &Postgres, disk: &SmallDisk) {
    server.stop().await.expect("stopped");
    // Whoever the server runs as has to come there.
    for folder in [disk.path().parent().expect("a folder"), disk.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("opened");
    }
    let (tables, moved) = (server.folder().join("data/base"), disk.path().join("base"));
    let copied = Command::new("cp").arg("-a").args([&tables, &moved]).status().await.expect("cp");
    assert!(copied.success());
    fs::remove_dir_all(&tables).expect("removed");
    symlink(&moved, &tables).expect("a link");
    server.start_again().await.expect("started again");
}
