//! The plainest client: what these tests need of lapin, each step with a deadline.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions},
};
use std::time::Duration;
use tokio::time::timeout;

pub(crate) async fn connect(url: &str) -> Connection {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    timeout(PATIENCE, connecting).await.expect("an answer in time").expect("connected")
}

pub(crate) async fn confirming_channel(connection: &Connection) -> Channel {
    let channel = timeout(PATIENCE, connection.create_channel()).await.expect("in time").expect("a channel");
    timeout(PATIENCE, channel.confirm_select(ConfirmSelectOptions::default()))
        .await
        .expect("in time")
        .expect("confirms");
    channel
}

/// Sends the numbers from 0 through the default exchange, each confirmed before the next.
pub(crate) async fn confirmed_sends(url: &str, queue: &str, count: u32) {
    let connection = connect(url).await;
    let channel = confirming_channel(&connection).await;
    for number in 0..count {
        let confirm = channel
            .basic_publish(
                "".into(),
                queue.into(),
                BasicPublishOptions::default(),
                number.to_string().as_bytes(),
                BasicProperties::default().with_delivery_mode(2),
            )
            .await
            .expect("published");
        let confirmation = confirm.await.expect("an answer");
        assert!(confirmation.is_ack(), "{confirmation:?}");
    }
    close(connection).await;
}

/// Takes what is in the queue, in its order.
pub(crate) async fn take_all(url: &str, queue: &str) -> Vec<String> {
    let connection = connect(url).await;
    let channel = timeout(PATIENCE, connection.create_channel()).await.expect("in time").expect("a channel");
    let mut taken = Vec::new();
    loop {
        let getting = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
        let got = timeout(PATIENCE, getting).await.expect("in time").expect("an answer");
        let Some(message) = got else { break };
        taken.push(String::from_utf8_lossy(&message.delivery.data).into_owned());
    }
    close(connection).await;
    taken
}

pub(crate) async fn close(connection: Connection) {
    let _ = timeout(PATIENCE, connection.close(200, "done".into())).await;
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
