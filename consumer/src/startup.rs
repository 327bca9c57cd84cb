//! What is there on the broker when a consumer begins, as far as AMQP can tell.
//!
//! A passive declare sees only whether a queue exists, not its type, arguments or bindings.

use std::time::Duration;

use correio_broker_config::{
    ConnectError, Connections, LeasedChannel, OwnQueue, Presence, ReplyCause, ensure, parking_queue_name,
    retry_queue_name, wire,
};
use correio_guarantees::RetrySchedule;
use correio_message::{ShortText, TooLong};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    consumer::Settings,
    error::ConsumeError,
    link::STEP_DEADLINE,
    processing::{Acknowledgement, HALF_OF_CONSUMER_TIMEOUT, Processing},
};

/// What a consumer found when it began: which guarantees it can keep on this queue, and which not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Startup {
    /// The parking queue is missing: a message that fails for good is given back and the consumer ends.
    pub no_parking_queue: Option<String>,
    /// These delay queues are missing: a failed message is retried in place and holds a place of the prefetch.
    pub no_delay_queues: Vec<String>,
    /// Order was asked for, and nothing seen here tells whether the queue has a single active consumer: it has no parking
    /// queue, so it is none of ours, or the login may not look for its delay queues.
    pub single_active_consumer_unseen: bool,
    /// The mailbox's, group's or listener's queue was not there and is made now: nobody was here before, or they were away
    /// for longer than it stays, and what was sent meanwhile is gone.
    pub begins_empty: bool,
}

impl Startup {
    /// Whether everything that the settings ask for was found.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        Self { begins_empty: false, ..self.clone() } == Self::default()
    }

    /// What is missing, one sentence each, with the way out.
    #[must_use]
    pub fn warnings(&self, queue: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.begins_empty {
            warnings.push(format!(
                "{queue} is new and begins empty: if somebody was here before, it was away for longer than the queue stays, and \
                 what was sent since is gone"
            ));
        }
        if let Some(parking) = &self.no_parking_queue {
            warnings.push(format!(
                "there is no parking queue {parking}: a message that fails for good is given back and the consumer ends; \
                 `cargo broker apply --queue {queue}` makes one"
            ));
        }
        if !self.no_delay_queues.is_empty() {
            warnings.push(format!(
                "there is no delay queue {}: failed messages are retried in place, each holding a place of the prefetch; \
                 `cargo broker apply --queue {queue}` makes them",
                self.no_delay_queues.join(", ")
            ));
        }
        if self.single_active_consumer_unseen {
            warnings.push(format!(
                "AMQP does not show whether {queue} has a single active consumer, and without one the order is lost as soon as \
                 a second consumer comes; `cargo broker check --queue {queue} --ordered` compares what can be compared"
            ));
        }
        warnings
    }
}

/// The queues around a work queue, as far as they are there.
#[derive(Clone, Debug)]
pub(crate) struct Company {
    pub(crate) parking: ShortText,
    pub(crate) can_park: bool,
    /// One for each delay of the schedule, or none: then failed messages are retried in place.
    pub(crate) delays: Vec<(Duration, ShortText)>,
}

impl Company {
    pub(crate) fn delay_queue(&self, delay: Duration) -> Option<ShortText> {
        self.delays.iter().find(|(of, _)| *of == delay).map(|(_, name)| name.clone())
    }
}

/// Looks which queues are there.
pub(crate) async fn look(connections: &Connections, settings: &Settings) -> Result<(Startup, Company), ConsumeError> {
    give_back(connections.channel_within(settings.connect_deadline).await?).await;
    if let Some(own) = &settings.own {
        return own_queue(connections, settings, own).await;
    }
    let queue = &settings.queue;
    match is_there(connections, queue).await? {
        Seen::There => {}
        Seen::Missing => return Err(ConsumeError::NoSuchQueue { queue: queue.to_string() }),
        Seen::Forbidden { said } => return Err(ConsumeError::Forbidden { queue: queue.to_string(), cause: said }),
    }
    let name = |name: Result<ShortText, TooLong>| {
        name.map_err(|error| ConsumeError::Startup {
            step: format!("naming the queues around {queue}"),
            cause: error.to_string(),
        })
    };
    let mut startup = Startup::default();
    let parking = name(parking_queue_name(queue))?;
    let can_park = is_there(connections, &parking).await? != Seen::Missing;
    if !can_park {
        startup.no_parking_queue = Some(parking.to_string());
    }
    let schedule = settings.processing.retry();
    let mut delays = Vec::new();
    match &settings.processing {
        Processing::Independent { .. } => {
            for delay in schedule.delays() {
                let delay_queue = name(retry_queue_name(queue, delay))?;
                if is_there(connections, &delay_queue).await? == Seen::Missing {
                    startup.no_delay_queues.push(delay_queue.to_string());
                }
                delays.push((delay, delay_queue));
            }
            if let Some(missing) = startup.no_delay_queues.first() {
                delays.clear();
                fits_in_place(settings, missing)?;
            }
        }
        Processing::OrderedByKey { .. } => {
            // A delay queue tells a shared queue: an ordered one has none, because what went round would be overtaken.
            let first = |schedule: &RetrySchedule| schedule.delays().first().copied();
            let tell_tales = [first(schedule), first(&RetrySchedule::default())];
            let mut unseen = !can_park;
            for delay in tell_tales.into_iter().flatten() {
                let delay_queue = name(retry_queue_name(queue, delay))?;
                match is_there(connections, &delay_queue).await? {
                    Seen::Missing => {}
                    Seen::Forbidden { .. } => unseen = true,
                    Seen::There => {
                        return Err(ConsumeError::QueueIsShared {
                            queue: queue.to_string(),
                            delay_queue: delay_queue.to_string(),
                        });
                    }
                }
            }
            startup.single_active_consumer_unseen = unseen;
        }
    }
    Ok((startup, Company { parking, can_park, delays }))
}

/// Makes the consumer's own queue, with all that it needs.
async fn own_queue(
    connections: &Connections,
    settings: &Settings,
    own: &OwnQueue,
) -> Result<(Startup, Company), ConsumeError> {
    let begins_empty = ensure(connections, own).await? == Presence::MadeNow;
    let name = |name: Result<ShortText, TooLong>| {
        name.unwrap_or_else(|_| unreachable!("an own queue's name leaves room for those around it"))
    };
    let parking = name(parking_queue_name(own.name()));
    let delays = match &settings.processing {
        Processing::Independent { retry, .. } => retry.delays(),
        Processing::OrderedByKey { .. } => Vec::new(),
    };
    let delays = delays.into_iter().map(|delay| (delay, name(retry_queue_name(own.name(), delay)))).collect();
    let startup = Startup { begins_empty: begins_empty && !settings.while_here, ..Startup::default() };
    Ok((startup, Company { parking, can_park: true, delays }))
}

/// Whether failed messages can be retried in place, for want of this delay queue, before the broker takes them away.
fn fits_in_place(settings: &Settings, missing: &str) -> Result<(), ConsumeError> {
    // What is acknowledged on receipt is neither held unsettled nor retried.
    let held = match settings.acknowledgement {
        Acknowledgement::AfterHandling => settings.processing.longest_hold_in_place(settings.handler_deadline),
        Acknowledgement::OnDelivery => return Ok(()),
    };
    if held < HALF_OF_CONSUMER_TIMEOUT {
        return Ok(());
    }
    Err(ConsumeError::HeldTooLong { queue: settings.queue.to_string(), delay_queue: missing.to_owned(), held })
}

#[derive(PartialEq, Eq)]
enum Seen {
    There,
    Missing,
    /// The login may not look. Of the queues around a work queue that is no loss: it needs to write to their exchange
    /// only, and each copy's confirm tells.
    Forbidden {
        said: String,
    },
}

async fn is_there(connections: &Connections, queue: &ShortText) -> Result<Seen, ConsumeError> {
    let lease = connections.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looking = lease.channel().queue_declare(wire::short_string(queue), options, FieldTable::default());
    let seen = match timeout(STEP_DEADLINE, looking).await {
        Ok(Ok(_)) => Ok(Seen::There),
        Ok(Err(error)) => match ReplyCause::of(&error) {
            ReplyCause::NotFound { .. } => Ok(Seen::Missing),
            ReplyCause::AccessRefused { said } => Ok(Seen::Forbidden { said }),
            // Somebody has it for itself, so it is there.
            ReplyCause::Locked { .. } => Ok(Seen::There),
            ReplyCause::Lost { reason } => {
                let address = lease.address().to_string();
                return Err(ConnectError::Closed { address, reason }.into());
            }
            other => Err(other.to_string()),
        },
        Err(_) => Err(format!("no answer within {STEP_DEADLINE:?}")),
    };
    match seen {
        Ok(seen) => {
            give_back(lease).await;
            Ok(seen)
        }
        Err(cause) => Err(ConsumeError::Startup { step: format!("looking at the queue {queue}"), cause }),
    }
}

async fn give_back(lease: LeasedChannel) {
    if let Err(error) = lease.give_back().await {
        tracing::debug!(%error, "a channel was not closed in good order");
    }
}

#[cfg(test)]
mod tests {
    use correio_broker_config::{Address, DEFAULT_RETRY_DELAYS};

    use super::*;

    fn settings(acknowledgement: Acknowledgement, handler_deadline: Duration) -> Settings {
        Settings {
            address: Address::new("localhost", 5672, "consumer", "consumer"),
            queue: ShortText::new("orders").unwrap(),
            own: None,
            while_here: false,
            subscription: ShortText::new("orders").unwrap(),
            processing: Processing::independent(),
            budget: crate::budget::Budget { prefetch: 64, largest: 1_000, bytes: 64_000 },
            acknowledgement,
            log: None,
            breaker: None,
            transactions: None,
            handler_deadline,
            drain_deadline: Duration::ZERO,
            connect_deadline: Duration::ZERO,
            topology: None,
            stop_after_count: None,
            stop_when_idle: None,
            look_after: Duration::from_secs(15),
        }
    }

    #[test]
    fn without_delay_queues_what_could_be_held_past_the_brokers_patience_is_refused_with_the_way_out() {
        let missing = "orders.retry.1s";
        let after_handling = |deadline| settings(Acknowledgement::AfterHandling, Duration::from_secs(deadline));
        assert!(fits_in_place(&after_handling(60), missing).is_ok());
        // Six attempts of three minutes, and 96 s between them.
        let refused = fits_in_place(&after_handling(180), missing).expect_err("too long").to_string();
        for named in [missing, "1176s", "broker apply --queue orders", "900s"] {
            assert!(refused.contains(named), "{named}: {refused}");
        }
        let on_receipt = settings(Acknowledgement::OnDelivery, Duration::from_secs(180));
        assert!(fits_in_place(&on_receipt, missing).is_ok());
    }

    #[test]
    fn a_work_queue_has_a_delay_queue_for_each_delay_of_the_default_schedule() {
        assert_eq!(RetrySchedule::default().delays(), DEFAULT_RETRY_DELAYS);
    }
}
