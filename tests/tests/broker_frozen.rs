//! A broker that accepts connections and says nothing: stopped in its tracks.

use std::time::{Duration, Instant};

use correio_broker_config::{Address, ConnectError, ConnectionSettings, Connections, Purpose, Step};
use correio_lab::broker::{Login, NodeOptions, for_each_own_in_turn};

#[tokio::test(flavor = "multi_thread")]
async fn connecting_to_a_frozen_broker_ends_at_its_deadline_and_leaves_no_thread_behind() {
    for_each_own_in_turn(NodeOptions::default(), async |node| {
        let address = Address::parse(&node.amqp_url(Login::Producer)).unwrap();
        let settings = ConnectionSettings {
            connect_timeout: Duration::from_millis(700),
            ..ConnectionSettings::new("tests", "", Purpose::Publish)
        };
        let connections = Connections::new(address, settings);
        node.pause().await.unwrap();
        let before = threads_of_lapin();
        for _ in 0..5 {
            let started = Instant::now();
            let error = connections.channel().await.unwrap_err();
            assert!(matches!(error, ConnectError::TimedOut { step: Step::Connect, .. }), "{error:?}");
            assert!(!error.is_permanent());
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while threads_of_lapin() > before {
            assert!(Instant::now() < deadline, "{} threads are left", threads_of_lapin() - before);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node.resume().await.unwrap();
        connections.channel().await.unwrap().close().await.unwrap();
    })
    .await;
}

/// How many threads of lapin this process has: it names them.
fn threads_of_lapin() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}
