//! The programs get all of it through the URL and the environment.

use std::time::Duration;

use correio_lab::broker::{Login, NodeOptions, for_each_own};
use correio_tests::{consuming::shared, programs::Program};
use tempfile::TempDir;

use crate::{authority::Authority, reaching::tls_port};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_program_speaks_tls_with_a_list_of_nodes_and_a_password_file_and_ends_with_3_and_the_reason_where_it_cannot()
{
    let authority = Authority::new("known");
    let stranger = Authority::new("unknown");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, false));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let queue = shared(node, "program").await;
        let folder = TempDir::new().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, format!("{}\n", node.password(Login::Producer))).unwrap();
        // Nobody listens on port 1.
        let nodes = format!("localhost:1,localhost:{}", tls_port(node).port());
        let run = async |query: String| {
            let program = Program::new("producer").args(["send", "--to", &queue]).stdin("one\n");
            let url = format!("amqps://{}@{nodes}/?{query}", Login::Producer.name());
            program.env("AMQP_URL", url).env("AMQP_PASSWORD_FILE", &password).finish(PATIENCE).await
        };
        let sent = run(format!("cacertfile={}", authority.file().display())).await;
        assert_eq!(sent.code, Some(0), "{sent}");
        assert_eq!(node.queue_depth(&queue).await.unwrap(), 1);

        let unknown = run(format!("cacertfile={}", stranger.file().display())).await;
        assert_eq!(unknown.code, Some(3), "{unknown}");
        assert!(unknown.stderr.contains("unknown authority"), "{unknown}");
        let blind = run("verify=verify_none".to_owned()).await;
        assert_eq!(blind.code, Some(2), "{blind}");
        assert!(blind.stderr.contains("verify_none"), "{blind}");
    })
    .await;
}
