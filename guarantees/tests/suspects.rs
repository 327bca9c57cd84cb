//! The message that kills its consumers is found, and nobody else is: against a queue that counts as a broker does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use correio_guarantees::{Judgement, Returns, Room, Suspects, SuspicionLimits};
use correio_message::MessageId;

fn counted(returns: u32) -> Returns {
    Returns { counted: returns, carried: 0 }
}

/// A queue, and consumers that hold what it hands out until they die of it.
struct Queue {
    ready: VecDeque<u32>,
    returns: BTreeMap<u32, u32>,
    killers: BTreeSet<u32>,
    handled: BTreeSet<u32>,
    parked: BTreeSet<u32>,
}

impl Queue {
    fn of(messages: u32, killers: &[u32]) -> Self {
        Self {
            ready: (0..messages).collect(),
            returns: BTreeMap::new(),
            killers: killers.iter().copied().collect(),
            handled: BTreeSet::new(),
            parked: BTreeSet::new(),
        }
    }

    fn returns(&self, message: u32) -> u32 {
        self.returns.get(&message).copied().unwrap_or_default()
    }

    /// What was held comes back to the head, once more.
    fn give_back(&mut self, held: &[u32]) {
        for message in held.iter().rev() {
            *self.returns.entry(*message).or_default() += 1;
            self.ready.push_front(*message);
        }
    }

    /// One life of a consumer: until it dies, or nothing is left. Handles in the order of the queue.
    fn live(&mut self, (mut suspects, in_turn): (Suspects, bool), prefetch: usize) -> bool {
        loop {
            let room = suspects.wanted();
            suspects.on_subscribed(room);
            let most = if room == Room::One { 1 } else { prefetch };
            let mut held: Vec<u32> = Vec::new();
            while suspects.wanted() == room || !held.is_empty() {
                while held.len() < most
                    && let Some(next) = self.ready.pop_front()
                {
                    held.push(next);
                }
                let Some(message) = held.first().copied() else { return false };
                match suspects.judge(counted(self.returns(message)), None) {
                    Judgement::Killer => {
                        self.parked.insert(message);
                    }
                    // In order everything goes back first.
                    Judgement::Suspect if in_turn && room == Room::Full => {
                        self.give_back(&held);
                        held.clear();
                        break;
                    }
                    _ if self.killers.contains(&message) => {
                        self.give_back(&held);
                        return true;
                    }
                    _ => {
                        self.handled.insert(message);
                    }
                }
                held.remove(0);
            }
        }
    }

    fn deaths(&mut self, suspects: fn() -> (Suspects, bool), prefetch: usize) -> u32 {
        let mut deaths = 0;
        while self.live(suspects(), prefetch) {
            deaths += 1;
            assert!(deaths < 1_000, "it never ends");
        }
        deaths
    }
}

const BOTH: [fn() -> (Suspects, bool); 2] = [
    || (Suspects::one_by_one(SuspicionLimits::default()), false),
    || (Suspects::in_turn(SuspicionLimits::IN_TURN), true),
];

#[test]
fn one_killer_among_100_costs_five_deaths_and_is_the_only_one_parked_wherever_it_stands() {
    for make in BOTH {
        for killer in [0, 1, 42, 63, 64, 98, 99] {
            let mut queue = Queue::of(100, &[killer]);
            assert_eq!(queue.deaths(make, 64), 5);
            assert_eq!(queue.parked, BTreeSet::from([killer]));
            assert_eq!(queue.handled.len(), 99);
        }
    }
}

#[test]
fn many_killers_in_one_prefetch_are_all_parked_and_no_neighbour_with_them() {
    for make in BOTH {
        let killers = [3, 4, 5, 20, 40, 41, 99];
        let mut queue = Queue::of(100, &killers);
        queue.deaths(make, 64);
        assert_eq!(queue.parked, BTreeSet::from(killers));
        assert_eq!(queue.handled.len(), 93);
    }
}

#[test]
fn one_ordinary_crash_makes_no_suspect_and_the_second_does() {
    let mut suspects = Suspects::one_by_one(SuspicionLimits::default());
    assert_eq!(suspects.wanted(), Room::One, "a process that was just started may have died of its queue's head");
    assert_eq!(suspects.judge(counted(1), None), Judgement::Innocent);
    assert_eq!(suspects.wanted(), Room::Full);
    suspects.on_subscribed(Room::Full);
    assert_eq!(suspects.judge(counted(2), None), Judgement::Suspect);
    assert_eq!(suspects.wanted(), Room::One);
}

#[test]
fn an_innocent_one_behind_a_suspect_does_not_bring_back_the_room_before_it_is_asked_for_alone() {
    let mut suspects = Suspects::one_by_one(SuspicionLimits::default());
    suspects.on_subscribed(Room::Full);
    assert_eq!(suspects.judge(counted(4), None), Judgement::Suspect);
    assert_eq!(suspects.judge(counted(0), None), Judgement::Innocent);
    assert_eq!(suspects.wanted(), Room::One);
    suspects.on_subscribed(Room::One);
    assert_eq!(suspects.judge(counted(0), None), Judgement::Innocent);
    assert_eq!(suspects.wanted(), Room::Full);
}

#[test]
fn what_a_live_process_saw_come_back_does_not_count_against_it() {
    let id = MessageId::new("m").unwrap();
    for mut suspects in
        [Suspects::one_by_one(SuspicionLimits::default()), Suspects::in_turn(SuspicionLimits::default())]
    {
        for _ in 0..10 {
            suspects.on_survived(&id);
            suspects.on_channel_lost();
        }
        assert_eq!(suspects.judge(counted(10), Some(&id)), Judgement::Innocent);
        assert_eq!(suspects.judge(counted(12), Some(&id)), Judgement::Suspect);
        assert_eq!(suspects.judge(counted(18), Some(&id)), Judgement::Killer);
        let another = MessageId::new("n").unwrap();
        assert_eq!(suspects.judge(counted(10), Some(&another)), Judgement::Innocent, "it may have been on its way");
        assert_eq!(suspects.judge(counted(12), Some(&another)), Judgement::Suspect);
    }
}

#[test]
fn in_order_what_came_back_with_a_killer_is_laid_to_its_charge() {
    let mut suspects = Suspects::in_turn(SuspicionLimits::default());
    assert_eq!(suspects.judge(counted(5), None), Judgement::Killer);
    assert_eq!(suspects.judge(counted(5), None), Judgement::Suspect);
    assert_eq!(suspects.judge(counted(6), None), Judgement::Killer);
}
