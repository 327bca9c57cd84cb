//! lapin used directly: a stream of deliveries, one acknowledgement for every hundred.

use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};

use super::Seen;
use crate::{Error, Load, sample::Sample, usage::Stopwatch};

/// As its examples do it.
pub(in crate::way) async fn read(url: &str, queue: &str, load: Load) -> Result<Sample, Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(load.window.try_into()?, BasicQosOptions::default()).await?;
    let seen = Seen::none_of(load.messages);
    let (queue, options) = (ShortString::try_new(queue)?, BasicConsumeOptions::default());
    let mut deliveries = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await?;
    let watch = Stopwatch::start()?;
    for received in 1..=load.messages {
        let delivery = deliveries.next().await.ok_or("the subscription has ended")??;
        seen.on_message(&delivery.data);
        if received % ACKNOWLEDGED_AT_ONCE == 0 || received == load.messages {
            delivery.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    channel.close(200, ShortString::default()).await?;
    connection.close(200, ShortString::default()).await?;
    Sample::taken(watch, seen.ends())
}

const ACKNOWLEDGED_AT_ONCE: u64 = 100;
