//! `demo broker`: a node of one's own in the foreground, until Ctrl-C.

use super::{LabError, Login, Node, NodeOptions};
use std::{io::Write, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What `demo broker` can be told.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BrokerArgs {
    /// An empty broker, without the project's exchanges, queues and permissions
    #[arg(long)]
    empty: bool,
    /// Print the addresses as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Starts a node with its dashboard, says on `out` where it is, and keeps it until SIGINT, SIGTERM or SIGHUP. Then nothing of it is left.
///
/// # Errors
///
/// As [`Node::start`]; [`LabError::NotRunning`] when the node ends by itself.
///
/// # Cancel safety
///
/// Cancel safe: the node is ended.
pub async fn run_in_foreground(arguments: &BrokerArgs, out: &mut impl Write) -> Result<(), LabError> {
    let mut asked_to_end = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<Vec<Signal>, _>>()
        .map_err(|source| LabError::CannotRun { program: "the signal handlers".to_owned(), source })?;
    let options = NodeOptions {
        with_project_files: !arguments.empty,
        dashboard: true,
        usual_port: true,
        ..NodeOptions::default()
    };
    let node = tokio::select! {
        node = Node::start(options) => node?,
        () = any(&mut asked_to_end) => return Ok(()),
    };
    let words = if arguments.json { as_json(&node) } else { for_people(&node, arguments.empty) };
    // Nobody may be reading any more, and the node runs all the same.
    let _ = out.write_all(words.as_bytes()).and_then(|()| out.flush());
    let mut ended_by_itself = false;
    tokio::select! {
        () = any(&mut asked_to_end) => {}
        () = end_of(&node) => ended_by_itself = true,
    }
    let name = node.name().to_owned();
    node.close().await?;
    if ended_by_itself { Err(LabError::NotRunning { name }) } else { Ok(()) }
}

async fn any(signals: &mut [Signal]) {
    futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

async fn end_of(node: &Node) {
    while node.is_running().await {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn for_people(node: &Node, empty: bool) -> String {
    let mut text = format!("RabbitMQ {} runs, for you alone, in {}\n\n", node.version(), node.folder().display());
    for login in [Login::Producer, Login::Consumer, Login::Lab] {
        text.push_str(&format!("  AMQP as {:<9} {}\n", login.name(), node.amqp_url(login)));
    }
    if let Some(address) = node.management_url() {
        let (student, lab) = (Login::Student.name(), Login::Lab.name());
        text.push_str(&format!("  dashboard         {address}\n"));
        text.push_str(&format!("                    user {student}, password {}\n", node.password(Login::Student)));
        text.push_str(&format!(
            "                    user {lab} (may do everything), password {}\n",
            node.password(Login::Lab)
        ));
    }
    if !empty {
        let elsewhere = node.amqp_address().port() != 5672;
        let url = |login| if elsewhere { format!("AMQP_URL={} ", node.amqp_url(login)) } else { String::new() };
        text.push_str("\nIn other terminals:\n\n");
        text.push_str(&format!("  {}cargo consumer run --from orders\n", url(Login::Consumer)));
        text.push_str(&format!(
            "  echo '{{\"pizza\": 1}}' | {}cargo producer send --to orders\n",
            url(Login::Producer)
        ));
    }
    text.push_str("\nCtrl-C ends it and leaves nothing behind.\n");
    text
}

fn as_json(node: &Node) -> String {
    let users: serde_json::Map<String, serde_json::Value> =
        [Login::Producer, Login::Consumer, Login::Student, Login::Lab]
            .into_iter()
            .map(|login| {
                let user = serde_json::json!({ "password": node.password(login), "amqp": node.amqp_url(login) });
                (login.name().to_owned(), user)
            })
            .collect();
    let folder = node.folder().to_string_lossy();
    let line = serde_json::json!({ "version": node.version(), "dashboard": node.management_url(), "folder": folder, "users": users });
    format!("{line}\n")
}
