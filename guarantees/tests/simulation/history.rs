//! One history: callers, shell, client, broker and weather take turns by chance, and then it comes to an end.

use correio_guarantees::WindowLimits;

use crate::{
    broker::{Broker, KEYS, QUEUES, Route, RouteState},
    chance::Chance,
    law::{Broken, Law},
    ledger::Ledger,
    machine::Machine,
    numbers::Numbers,
    seen::{Seen, Sight},
    shell::{Reading, Shell},
    world::{Trace, World},
};

/// What came of a history.
pub(crate) struct Told {
    pub(crate) broken: Option<Broken>,
    pub(crate) seen: Seen,
    pub(crate) trace: Vec<String>,
}

/// How to look at a history.
#[derive(Clone, Copy, Default)]
pub(crate) struct Watch {
    /// Look at this law alone, and let a machine go on that breaks others.
    pub(crate) only: Option<Law>,
    pub(crate) trace: Trace,
}

/// Plays the history of this seed with this machine, up to its end or to the first broken law.
pub(crate) fn play<W: Machine>(seed: u64, watch: Watch, machine: impl FnOnce(WindowLimits) -> W) -> Told {
    let mut chance = Chance::new(seed);
    let weather = Weather::new(&mut chance);
    let routes = [(); KEYS].map(|()| Route {
        queues: chance.pick(&[0b0001, 0b0001, 0b0010, 0b0100, 0b0011, 0b1100]),
        state: if chance.one_in(8) { any_fault(&mut chance) } else { RouteState::Bound },
    });
    let limits = weather.limits;
    let shell = Shell::new(machine(limits), limits.messages + chance.below(8), weather.reading);
    let world = World {
        now: 0,
        broker: Broker::new(routes, weather.reading != Reading::AsCompleted),
        ledger: Ledger::new(limits, watch.only),
        seen: Seen::default(),
        late: Vec::new(),
        trace: watch.trace,
        told: Vec::new(),
        chance,
    };
    let mut history = History { weather, shell, world };
    let Weather { patience, reading, is_broker_slow, ending, .. } = history.weather;
    history.world.say(|| format!("{limits:?}, {patience} until a deadline, confirms read {reading:?}"));
    history.world.say(|| format!("a slow broker: {is_broker_slow}, {ending:?} in the end, {routes:?}"));
    history.run();
    let World { ledger, seen, told, .. } = history.world;
    Told { broken: ledger.broken, seen, trace: told }
}

/// What this history is like.
struct Weather {
    limits: WindowLimits,
    messages: usize,
    /// How long an outcome is waited for.
    patience: u64,
    reading: Reading,
    /// The broker may read even from a killed connection what it had received.
    is_broker_slow: bool,
    ending: Ending,
    /// The events, each as often as it is likely.
    deck: Vec<Event>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    HandIn,
    Read,
    Answer,
    Receive,
    See,
    Connect,
    Tick,
    ReadLate,
    Cut,
    Fill,
    Reroute,
    Silence,
    OldAnswer,
}

/// How many events come after the last message was handed in.
const AFTER_THE_LAST: usize = 15;

/// Always there, and how often.
const WORK: [(Event, usize); 6] = [
    (Event::HandIn, 8),
    (Event::Read, 8),
    (Event::Answer, 8),
    (Event::Receive, 8),
    (Event::See, 8),
    (Event::Connect, 6),
];

/// Not in every history.
const TROUBLE: [(Event, usize); 7] = [
    (Event::Tick, 2),
    (Event::ReadLate, 2),
    (Event::Cut, 1),
    (Event::Fill, 1),
    (Event::Reroute, 1),
    (Event::Silence, 1),
    (Event::OldAnswer, 1),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// All is well again, and everything gets its answer.
    Recovery,
    /// The broker stays silent, and everything ends at its deadline.
    Silence,
    /// The producer stops waiting.
    GivingUp,
}

impl Weather {
    fn new(chance: &mut Chance) -> Self {
        let bytes = chance.pick(&[usize::MAX, 60, 120]);
        let mut deck = Vec::with_capacity(80);
        for (event, often) in WORK {
            deck.extend([event].repeat(often));
        }
        for (event, often) in TROUBLE {
            deck.extend([event].repeat(often * chance.pick(&[0, 0, 1, 1, 3])));
        }
        Self {
            limits: WindowLimits { messages: chance.between(1, 7), bytes },
            // Most are short.
            messages: 10 + chance.below(51).min(chance.below(51)),
            patience: chance.between(20, 400) as u64,
            reading: [Reading::AsCompleted, Reading::AsPublished, Reading::Anyhow][chance.below(3)],
            is_broker_slow: chance.one_in(4),
            ending: chance.pick(&[
                Ending::Recovery,
                Ending::Recovery,
                Ending::Recovery,
                Ending::Silence,
                Ending::GivingUp,
            ]),
            deck,
        }
    }
}

struct History<W> {
    weather: Weather,
    shell: Shell<W>,
    world: World,
}

impl<W: Machine> History<W> {
    fn run(&mut self) {
        let mut steps = 30 * self.weather.messages;
        while steps > 0 && !self.is_over() {
            self.step();
            steps -= 1;
            if self.world.ledger.messages.len() == self.weather.messages {
                steps = steps.min(AFTER_THE_LAST);
            }
        }
        match self.weather.ending {
            Ending::Recovery => self.recover(),
            Ending::Silence => self.fall_silent(),
            Ending::GivingUp => {
                self.world.seen.note(Sight::GivenUp);
                self.shell.give_up(&mut self.world);
            }
        }
        while !self.is_over() && !self.world.late.is_empty() {
            self.world.read_late(usize::MAX);
        }
        if !self.is_over() {
            self.world.ledger.check_end(&self.world.broker.queues, self.shell.is_at_rest());
        }
    }

    fn is_over(&self) -> bool {
        self.world.ledger.broken.is_some()
    }

    fn step(&mut self) {
        let event = self.world.chance.pick(&self.weather.deck);
        let count = self.world.chance.between(1, 5);
        match event {
            Event::HandIn => (0..count.min(3)).for_each(|_| self.hand_in()),
            Event::Read => self.read(count),
            Event::Answer => self.answer(count),
            Event::Receive => self.shell.receive(count, &mut self.world),
            Event::See => self.shell.see(count, &mut self.world),
            Event::Connect => self.shell.connect(&mut self.world),
            Event::Tick => self.tick(5 * count as u64),
            Event::ReadLate => self.world.read_late(count),
            Event::Cut => self.shell.cut(&mut self.world),
            Event::Fill => {
                let is_worse = self.world.chance.one_in(2);
                let queue = self.world.chance.below(QUEUES);
                self.world.broker.full = if is_worse { self.world.broker.full | 1 << queue } else { 0 };
                self.world
                    .say(|| if is_worse { format!("queue {queue} is full") } else { "no queue is full".to_owned() });
            }
            Event::Reroute => {
                let (is_worse, key) = (self.world.chance.one_in(2), self.world.chance.below(KEYS));
                if is_worse {
                    self.world.broker.routes[key].state = any_fault(&mut self.world.chance);
                } else {
                    self.world.broker.routes.iter_mut().for_each(|route| route.state = RouteState::Bound);
                }
                let routes = self.world.broker.routes.map(|route| route.state);
                self.world.say(|| format!("the routes of the keys are now {routes:?}"));
            }
            Event::Silence => {
                // Three times in four it speaks again.
                self.world.broker.is_silent = self.world.chance.one_in(4);
                if self.world.broker.is_silent {
                    self.world.seen.note(Sight::Silence);
                    self.world.say(|| "the broker is silent".to_owned());
                }
            }
            Event::OldAnswer => self.shell.see_an_old_answer(&mut self.world),
        }
        self.turn();
    }

    fn turn(&mut self) {
        if !self.is_over() {
            self.shell.turn(&mut self.world);
        }
    }

    fn hand_in(&mut self) {
        let World { now, chance, ledger, .. } = &mut self.world;
        let number = ledger.messages.len();
        if number == self.weather.messages.min(Numbers::MOST) || !self.shell.wants_more() {
            return;
        }
        let mut key = chance.below(KEYS);
        let mut id = number;
        if number > 0 && chance.one_in(10) {
            let earlier = &ledger.messages[number - 1 - chance.below(number.min(6))];
            id = earlier.id;
            if chance.one_in(2) {
                key = earlier.key;
            }
        }
        let bytes = if chance.one_in(30) { 150 } else { chance.between(1, 30) };
        let number = ledger.hand_in(id, key, bytes, *now + self.weather.patience);
        self.world.say(|| format!("#{number} is handed in: id {id}, key {key}, {bytes} bytes"));
        self.shell.hand_in(number);
    }

    fn read(&mut self, count: usize) {
        if let Some(connection) = self.shell.connection()
            && !self.world.broker.is_silent
        {
            self.world.read(connection, count);
        }
    }

    fn answer(&mut self, count: usize) {
        let Some(connection) = self.shell.connection() else { return };
        if self.world.broker.is_silent {
            return;
        }
        for _ in 0..count {
            match self.world.broker.answer(connection, &mut self.world.chance) {
                Some(answered) => self.world.on_broker_answered(answered),
                None => return,
            }
        }
    }

    fn tick(&mut self, time: u64) {
        self.world.now += time;
        self.shell.on_time(self.weather.is_broker_slow, &mut self.world);
    }

    fn recover(&mut self) {
        self.world.broker.is_silent = false;
        // Each round ends a message at least, or finds that a channel is closed. No deadline is needed for it.
        for _ in 0..10 * self.weather.messages {
            if self.is_over() || self.shell.is_done() {
                return;
            }
            self.shell.connect(&mut self.world);
            self.turn();
            self.world.read_late(1);
            self.read(usize::MAX);
            self.answer(usize::MAX);
            self.shell.receive(usize::MAX, &mut self.world);
            self.shell.see(usize::MAX, &mut self.world);
        }
    }

    fn fall_silent(&mut self) {
        self.world.broker.is_silent = true;
        // All wait equally long, and the youngest has waited by then.
        for _ in 0..12 {
            if self.is_over() || self.shell.is_done() {
                return;
            }
            self.shell.connect(&mut self.world);
            self.turn();
            self.tick(self.weather.patience / 10 + 1);
        }
    }
}

fn any_fault(chance: &mut Chance) -> RouteState {
    chance.pick(&[RouteState::NoBinding, RouteState::NoBinding, RouteState::NoExchange, RouteState::Forbidden])
}
