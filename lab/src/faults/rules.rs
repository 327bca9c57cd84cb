//! What the proxy does at the moment, as one value that every connection watches.

use super::{
    Counts,
    frames::{Fate, Frame, Kind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the client says: publishes, acknowledgements, its half of the heartbeats.
    ClientToBroker,
    /// What the broker says: confirms, returns, deliveries, its half of the heartbeats.
    BrokerToClient,
}

/// How a connection is cut, as its client sees it.
///
/// The broker always sees an end of stream after all that was forwarded. Even so, RabbitMQ drops publishes that it has read and not
/// yet handed to their queue when their connection ends: forwarded and not confirmed is *unknown*, not *there*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A reset (RST): what was under way to the client is gone.
    Reset,
    /// An end of stream (FIN).
    Finish,
}

/// Which connections a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// Each, those to come included.
    Each,
    /// The one accepted as this number, counted from 1, also before it is there.
    Number(u64),
}

/// All rules in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) refusing: bool,
    /// Whether the listener is closed: `refusing`, carried out.
    pub(crate) deaf: bool,
    pub(crate) stalled: bool,
    pub(crate) losing_confirms: bool,
    pub(crate) delays: BTreeMap<(Which, Direction), Duration>,
    pub(crate) swallowed: BTreeSet<(u64, Direction)>,
    pub(crate) live: BTreeMap<u64, Option<Ending>>,
}

impl Rules {
    /// How long a byte of this connection waits.
    pub(crate) fn delay(&self, connection: u64, direction: Direction) -> Duration {
        let of = |which| self.delays.get(&(which, direction)).copied();
        of(Which::Number(connection)).or_else(|| of(Which::Each)).unwrap_or_default()
    }

    /// Whether this connection's bytes in this direction are thrown away.
    pub(crate) fn swallows(&self, connection: u64, direction: Direction) -> bool {
        self.swallowed.contains(&(connection, direction))
    }

    /// How this connection is to be cut, if it is.
    pub(crate) fn cut(&self, connection: u64) -> Option<Ending> {
        self.live.get(&connection).copied().flatten()
    }

    /// Forgets a connection that has ended.
    pub(crate) fn forget(&mut self, connection: u64) {
        self.live.remove(&connection);
        for direction in [Direction::ClientToBroker, Direction::BrokerToClient] {
            self.swallowed.remove(&(connection, direction));
        }
    }
}

/// The counts, and the one rule that depends on them: both change together, over all connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    pub(crate) loss: Option<Loss>,
}

/// Publishes are swallowed: so many more go through, so many are swallowed, then the connection is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) still_through: u64,
    pub(crate) until_cut: Option<u64>,
}

impl Tally {
    /// The fate of a publish. `swallowed` says that its whole direction is.
    pub(crate) fn on_publish(&mut self, swallowed: bool) -> Fate {
        let fate = match (&mut self.loss, swallowed) {
            (_, true) => Fate::Drop,
            (None, false) => Fate::Forward,
            (Some(loss), false) if loss.still_through > 0 => {
                loss.still_through -= 1;
                Fate::Forward
            }
            (Some(Loss { until_cut: None, .. }), false) => Fate::Drop,
            (Some(Loss { until_cut: Some(left), .. }), false) => {
                *left = left.saturating_sub(1);
                if *left == 0 { Fate::Cut } else { Fate::Drop }
            }
        };
        match fate {
            Fate::Forward => self.counts.publishes_forwarded += 1,
            Fate::Drop => self.counts.publishes_swallowed += 1,
            Fate::Cut => {
                self.counts.publishes_swallowed += 1;
                // What is sent again after the cut is to get through.
                self.loss = None;
            }
        }
        fate
    }

    /// The fate of a confirm.
    pub(crate) fn on_confirm(&mut self, lost: bool) -> Fate {
        if lost {
            self.counts.confirms_dropped += 1;
            Fate::Drop
        } else {
            self.counts.confirms_forwarded += 1;
            Fate::Forward
        }
    }
}

/// Decides frame by frame for one direction of one connection, and remembers which messages it is in the middle of.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    losing: BTreeSet<u16>,
}

impl Judge {
    pub(crate) fn decide(
        &mut self,
        frame: Frame,
        direction: Direction,
        swallowed: bool,
        losing_confirms: bool,
        tally: &mut Tally,
    ) -> Fate {
        let fate = match (frame.kind, direction) {
            (Kind::Publish, Direction::ClientToBroker) => tally.on_publish(swallowed),
            (Kind::Confirm, Direction::BrokerToClient) => tally.on_confirm(swallowed || losing_confirms),
            // A message goes with its method, and it is one channel's next method that ends it.
            (Kind::Content, _) if self.losing.contains(&frame.channel) => return Fate::Drop,
            _ if swallowed => Fate::Drop,
            _ => Fate::Forward,
        };
        match (frame.kind, fate) {
            (Kind::Publish, Fate::Drop) => {
                self.losing.insert(frame.channel);
            }
            (Kind::Publish | Kind::Method | Kind::Confirm, _) => {
                self.losing.remove(&frame.channel);
            }
            _ => {}
        }
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Direction = Direction::ClientToBroker;

    #[test]
    fn a_message_is_lost_whole_and_other_channels_are_not_touched() {
        let (mut judge, mut tally) = (Judge::default(), Tally::default());
        tally.loss = Some(Loss { still_through: 1, until_cut: None });
        let mut fate = |channel, kind| judge.decide(Frame { channel, kind }, OUT, false, false, &mut tally);
        assert_eq!(fate(1, Kind::Publish), Fate::Forward);
        assert_eq!(fate(1, Kind::Content), Fate::Forward);
        assert_eq!(fate(1, Kind::Publish), Fate::Drop);
        assert_eq!(fate(2, Kind::Method), Fate::Forward);
        assert_eq!(fate(2, Kind::Content), Fate::Forward);
        assert_eq!(fate(1, Kind::Content), Fate::Drop);
        assert_eq!(fate(1, Kind::Method), Fate::Forward);
        assert_eq!(fate(1, Kind::Content), Fate::Forward);
        assert_eq!((tally.counts.publishes_forwarded, tally.counts.publishes_swallowed), (1, 1));
    }

    #[test]
    fn the_cut_comes_with_the_last_message_to_be_swallowed_and_ends_the_rule() {
        let mut tally = Tally { loss: Some(Loss { still_through: 2, until_cut: Some(3) }), ..Tally::default() };
        let fates: Vec<Fate> = (0..7).map(|_| tally.on_publish(false)).collect();
        assert_eq!(
            fates,
            [Fate::Forward, Fate::Forward, Fate::Drop, Fate::Drop, Fate::Cut, Fate::Forward, Fate::Forward]
        );
        assert_eq!((tally.counts.publishes_forwarded, tally.counts.publishes_swallowed), (4, 3));
    }

    #[test]
    fn the_delay_of_one_connection_goes_before_that_of_each() {
        let mut rules = Rules::default();
        rules.delays.insert((Which::Each, OUT), Duration::from_secs(1));
        rules.delays.insert((Which::Number(2), OUT), Duration::from_secs(2));
        assert_eq!(rules.delay(1, OUT), Duration::from_secs(1));
        assert_eq!(rules.delay(2, OUT), Duration::from_secs(2));
        assert_eq!(rules.delay(2, Direction::BrokerToClient), Duration::ZERO);
    }
}
