//! Numbers for messages with a key, given at the one place that decides the order on the wire.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU64,
    sync::Arc,
};

use correio_message::{Key, Line, Route, Sequence, Voids};
use uuid::Uuid;

/// Counts the messages of each line from 1, and remembers which numbers came to nothing until a later message
/// of the line has said so.
#[derive(Debug)]
pub(crate) struct Numbering {
    source: Uuid,
    streams: BTreeMap<Route, Stream>,
    lines: usize,
}

#[derive(Debug)]
struct Stream {
    name: Arc<str>,
    keys: BTreeMap<Key, Count>,
}

#[derive(Debug)]
struct Count {
    last: u64,
    /// Numbers that are on no queue and of which the consumer does not know yet: the latest [`Voids::MAX`]. One
    /// that is pushed out costs its consumer one gap deadline.
    voids: VecDeque<NonZeroU64>,
}

impl Numbering {
    /// Past this many lines the numbering starts again under a new source, so that memory stays bounded.
    pub(crate) const MAX_LINES: usize = 1_000_000;

    pub(crate) fn new(source: Uuid) -> Self {
        Self { source, streams: BTreeMap::new(), lines: 0 }
    }

    /// Whether no further line fits: the caller lets what is outstanding end, then restarts.
    pub(crate) fn is_full(&self) -> bool {
        self.lines >= Self::MAX_LINES
    }

    /// Starts again as another source. Only when nothing numbered is outstanding: sources have no order between
    /// them.
    pub(crate) fn restart(&mut self, source: Uuid) {
        *self = Self::new(source);
    }

    /// The next number of the line.
    pub(crate) fn next(&mut self, route: &Route, key: &Key) -> Sequence {
        if !self.streams.contains_key(route) {
            self.streams.insert(route.clone(), Stream { name: route.stream(), keys: BTreeMap::new() });
        }
        let Some(stream) = self.streams.get_mut(route) else { unreachable!("just inserted") };
        let count = stream.keys.entry(key.clone()).or_insert_with(|| {
            self.lines += 1;
            Count { last: 0, voids: VecDeque::new() }
        });
        count.last += 1;
        let number = NonZeroU64::new(count.last).unwrap_or(NonZeroU64::MIN);
        let voids = Voids::new(count.voids.drain(..));
        let line = Line { source: self.source, stream: stream.name.clone(), key: key.clone() };
        Sequence { line, number, voids }
    }

    /// What fills the holes of the line that nothing has declared yet: the latest of them, with the others as its voids.
    pub(crate) fn marker(&mut self, route: &Route, key: &Key) -> Option<Sequence> {
        let stream = self.streams.get_mut(route)?;
        let voids = &mut stream.keys.get_mut(key)?.voids;
        let number = voids.iter().copied().max()?;
        let line = Line { source: self.source, stream: stream.name.clone(), key: key.clone() };
        Some(Sequence { line, number, voids: Voids::new(voids.drain(..).filter(|void| *void != number)) })
    }

    /// The message ended without being on its queue for certain: nobody is to wait for its number, nor for those
    /// that it was itself to declare void.
    ///
    /// `false` if it is of an earlier source, of which no further message comes.
    pub(crate) fn on_not_delivered(&mut self, route: &Route, sequence: &Sequence) -> bool {
        if sequence.line.source != self.source {
            return false;
        }
        if let Some(count) = self.streams.get_mut(route).and_then(|s| s.keys.get_mut(&sequence.line.key)) {
            count.voids.extend(sequence.voids.iter());
            count.voids.push_back(sequence.number);
            while count.voids.len() > Voids::MAX {
                count.voids.pop_front();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use correio_message::{Exchange, ShortText};

    use super::*;

    fn route(queue: &str) -> Route {
        Route { exchange: Exchange::Queue.name(), routing_key: ShortText::new(queue).unwrap() }
    }

    #[test]
    fn each_key_counts_from_one_by_itself_and_so_does_each_stream() {
        let mut numbering = Numbering::new(Uuid::nil());
        let (a, b) = (Key::new("a").unwrap(), Key::new("b").unwrap());
        let numbers: Vec<u64> = [("q", &a), ("q", &b), ("q", &a), ("other", &a)]
            .map(|(queue, key)| numbering.next(&route(queue), key).number.get())
            .to_vec();
        assert_eq!(numbers, [1, 1, 2, 1]);
    }

    #[test]
    fn a_message_that_reached_no_queue_is_declared_void_by_the_next_one_of_its_key_and_only_once() {
        let mut numbering = Numbering::new(Uuid::nil());
        let key = Key::new("a").unwrap();
        let lost = numbering.next(&route("q"), &key);
        numbering.on_not_delivered(&route("q"), &lost);
        let second = numbering.next(&route("q"), &key);
        assert_eq!(second.voids.iter().map(NonZeroU64::get).collect::<Vec<_>>(), [1]);
        assert!(numbering.next(&route("q"), &key).voids.is_empty());
    }

    #[test]
    fn a_marker_fills_the_holes_of_an_idle_key_and_is_void_again_if_it_is_lost_itself() {
        let mut numbering = Numbering::new(Uuid::nil());
        let key = Key::new("a").unwrap();
        assert_eq!(numbering.marker(&route("q"), &key), None);
        let lost: Vec<_> = (0..3).map(|_| numbering.next(&route("q"), &key)).collect();
        for lost in [&lost[2], &lost[0]] {
            numbering.on_not_delivered(&route("q"), lost);
        }
        let marker = numbering.marker(&route("q"), &key).unwrap();
        assert_eq!((marker.number.get(), marker.voids.iter().map(NonZeroU64::get).collect()), (3, vec![1]));
        assert_eq!(numbering.marker(&route("q"), &key), None, "declared");
        numbering.on_not_delivered(&route("q"), &marker);
        let next = numbering.next(&route("q"), &key);
        assert_eq!((next.number.get(), next.voids.iter().map(NonZeroU64::get).collect()), (4, vec![1, 3]));
    }

    #[test]
    fn the_voids_of_a_message_that_is_lost_itself_are_said_again() {
        let mut numbering = Numbering::new(Uuid::nil());
        let key = Key::new("a").unwrap();
        for _ in 0..2 {
            let lost = numbering.next(&route("q"), &key);
            numbering.on_not_delivered(&route("q"), &lost);
        }
        let third = numbering.next(&route("q"), &key);
        assert_eq!(third.voids.iter().map(NonZeroU64::get).collect::<Vec<_>>(), [1, 2]);
    }
}
