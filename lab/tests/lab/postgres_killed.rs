//! What the lab promises about a PostgreSQL server that is killed, paused and started again.

use std::{fs, time::Duration};

use correio_lab::postgres::{Postgres, PostgresPrograms};

use crate::postgres_words::Conversation;

#[tokio::test]
async fn a_server_lets_its_user_in_says_its_version_and_keeps_commits_on_the_disk() {
    let server = Postgres::start().await.expect("a server");
    assert!(server.version().starts_with(|first: char| first.is_ascii_digit()), "{}", server.version());
    assert_eq!(server.url(), format!("postgres://correio@{}/correio", server.address()));
    let mut client = Conversation::with(&server).expect("let in");
    assert_eq!(client.say("SHOW server_version_num").expect("said").len(), 1);
    for (setting, value) in [("fsync", "on"), ("synchronous_commit", "on"), ("jit", "off"), ("autovacuum", "on")] {
        assert_eq!(client.say(&format!("SHOW {setting}")).expect("said"), [value], "{setting}");
    }
    assert_eq!(
        client.say("SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname = 'correio'").expect("said"),
        ["0"]
    );
    let refused =
        Conversation::of("postgres", "postgres", &server).err().expect("nobody is let in over TCP as superuser");
    assert!(refused.to_string().contains("pg_hba.conf"), "{refused}");
    server.close().await.expect("closed");
}

#[tokio::test]
async fn what_was_committed_survives_a_kill_and_a_new_start_on_the_same_port() {
    let server = Postgres::start().await.expect("a server");
    let url = server.url();
    let mut client = Conversation::with(&server).expect("let in");
    client.say("CREATE TABLE kept (n int)").expect("made");
    for round in 1..=3 {
        for n in 0..20 {
            client.say(&format!("INSERT INTO kept VALUES ({n})")).expect("committed");
        }
        client.say("BEGIN").expect("begun");
        client.say("INSERT INTO kept VALUES (-1)").expect("not committed");
        server.kill().await.expect("killed");
        assert!(!server.is_running().await && processes_in(&server) == 0);
        assert!(client.say("COMMIT").is_err(), "nobody answers");
        server.start_again().await.expect("started again");
        assert_eq!(server.url(), url);
        client = Conversation::with(&server).expect("let in again");
        assert_eq!(client.say("SELECT count(*) FROM kept").expect("counted"), [(20 * round).to_string()]);
    }
    server.stop().await.expect("stopped");
    assert!(!server.is_running().await && server.kill().await.is_err() && server.pause().await.is_err());
    server.start_again().await.expect("started after a stop");
    server.start_again().await.expect("started while it runs");
    client = Conversation::with(&server).expect("let in again");
    assert_eq!(client.say("SELECT count(*) FROM kept").expect("counted"), ["60"]);
    server.close().await.expect("closed");
}

#[tokio::test]
async fn a_paused_server_answers_nobody_until_it_goes_on() {
    let server = Postgres::start().await.expect("a server");
    let mut client = Conversation::with(&server).expect("let in");
    server.pause().await.expect("paused");
    assert!(server.is_running().await);
    client.ask("SELECT 7").expect("the socket is open");
    assert!(!client.is_answered_within(Duration::from_millis(300)), "a connection's own process stands still too");
    server.resume().await.expect("resumed");
    assert_eq!(client.answer().expect("answered"), ["7"]);

    server.pause().await.expect("paused");
    server.stop().await.expect("a paused one can be stopped");
    server.start_again().await.expect("started again");
    server.pause().await.expect("paused");
    server.kill().await.expect("a paused one can be killed");
    server.start_again().await.expect("started again");
    server.close().await.expect("closed");
}

#[tokio::test]
async fn the_packages_of_the_distribution_do_where_nothing_is_installed() {
    let programs = PostgresPrograms::debian().await.expect("unpacked");
    let server = Postgres::start_from(&programs).await.expect("a server");
    let mut client = Conversation::with(&server).expect("let in");
    // Its language is a library that it has to find, too.
    client.say("DO 'BEGIN RAISE NOTICE ''found''; END'").expect("run");
    server.kill().await.expect("killed");
    server.start_again().await.expect("started again");
    server.close().await.expect("closed");
}

fn processes_in(server: &Postgres) -> usize {
    let folder = server.folder().canonicalize().expect("there");
    let processes = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    processes
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
        .count()
}
