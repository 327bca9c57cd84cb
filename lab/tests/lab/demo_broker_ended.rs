//! `demo broker` gives its node away when it is asked to end, and leaves nothing.

use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn the_node_says_where_it_is_and_ends_with_the_program() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
            .args(["broker", "--json"])
            // Never for the lab: it goes nowhere near a broker that it did not start.
            .env("AMQP_URL", "amqp://nobody:nothing@127.0.0.1:1/%2f")
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        BufReader::new(demo.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let folder = PathBuf::from(said["folder"].as_str().expect("a folder"));
        assert!(folder.is_dir());
        assert!(
            said["users"]["producer"]["amqp"]
                .as_str()
                .expect("a URL")
                .starts_with("amqp://producer:producer@127.0.0.1:")
        );
        assert!(said["dashboard"].as_str().expect("a dashboard").starts_with("http://127.0.0.1:"));

        nix::sys::signal::kill(Pid::from_raw(demo.id().cast_signed()), signal).expect("asked to end");
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match demo.try_wait().expect("a child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(!folder.exists(), "{signal}");
    }
}
