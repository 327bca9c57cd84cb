//! The pipeline's dealings with the log of handled messages: one call at a time, each for a whole batch.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use correio_guarantees::{Admission, Claim, HandledId, Standing};

use super::{Moment, Pipeline};
use crate::{
    handled_log::{LogError, Piece, PieceEnd},
    held::{Stage, Ticket},
};

/// What the log is asked.
pub(crate) enum LogCall {
    Abandon(Vec<Claim>),
    Remember(Vec<Claim>),
    Admit {
        claims: Vec<Claim>,
        lease: Duration,
    },
    /// Handle these, in one transaction.
    Transact(Vec<Piece>),
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum LogAnswer {
    Abandoned(Result<(), LogError>),
    Remembered(Result<Vec<Standing>, LogError>),
    Admitted(Result<Vec<Admission>, LogError>),
    Transacted(Result<Vec<PieceEnd>, LogError>),
}

/// What is to be asked, and what was.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) to_abandon: Vec<Claim>,
    pub(super) to_remember: Vec<(Ticket, Claim)>,
    pub(super) to_admit: Vec<(Ticket, Claim)>,
    pub(super) to_transact: Vec<Ticket>,
    asked: Vec<(Ticket, Claim)>,
    /// Whether what was asked is to be remembered.
    is_remembering: bool,
    transacting: Vec<Ticket>,
    abandoning: Vec<Claim>,
    is_asked: bool,
    paused_until: Option<Instant>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.to_abandon.is_empty()
            && self.to_remember.is_empty()
            && self.to_admit.is_empty()
            && self.to_transact.is_empty()
    }

    /// When the log is asked again after a failure.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.paused_until.filter(|_| !self.is_asked && !self.is_empty())
    }
}

impl Pipeline {
    /// What to ask the log now; its answer goes to [`on_log_answer`](Self::on_log_answer).
    ///
    /// Ended claims come first, so that an id whose handler has failed is fresh when it is asked for again.
    pub(crate) fn next_log_call(&mut self, now: Instant) -> Option<LogCall> {
        let log = &mut self.log;
        if log.is_asked || log.is_empty() || log.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        log.paused_until = None;
        log.is_asked = true;
        if !log.to_abandon.is_empty() {
            log.abandoning = std::mem::take(&mut log.to_abandon);
            return Some(LogCall::Abandon(log.abandoning.clone()));
        }
        if !log.to_transact.is_empty() {
            let waiting = std::mem::take(&mut log.to_transact);
            let pieces = waiting.into_iter().filter_map(|ticket| Some((ticket, self.piece(ticket)?))).collect();
            let (now, later) = first_of_each(pieces, |(_, piece): &(Ticket, Piece)| piece.id.as_ref());
            self.log.to_transact = later.into_iter().map(|(ticket, _)| ticket).collect();
            let (tickets, pieces) = now.into_iter().unzip();
            self.log.transacting = tickets;
            return Some(LogCall::Transact(pieces));
        }
        let remembering = !log.to_remember.is_empty();
        let waiting = std::mem::take(if remembering { &mut log.to_remember } else { &mut log.to_admit });
        let (now, later) = first_of_each(waiting, |(_, claim)| Some(&claim.id));
        log.asked = now;
        log.is_remembering = remembering;
        *(if remembering { &mut log.to_remember } else { &mut log.to_admit }) = later;
        let claims = log.asked.iter().map(|(_, claim)| claim.clone()).collect();
        Some(if remembering { LogCall::Remember(claims) } else { LogCall::Admit { claims, lease: self.rules.lease } })
    }

    /// Whether the log is, or has to be, asked something.
    pub(crate) fn owes_log(&self) -> bool {
        self.log.is_asked || !self.log.is_empty()
    }

    /// The claims that are held: those whose work is done and not known to be remembered, and the others.
    pub(crate) fn claims(&self) -> (Vec<Claim>, Vec<Claim>) {
        let of = |which: fn(&Stage) -> bool| {
            let held = self.held.values().filter(move |held| which(&held.stage));
            held.filter_map(|held| held.claim()).collect::<Vec<_>>()
        };
        let mut open = of(|stage| matches!(stage, Stage::Handling | Stage::Admitting));
        open.extend(self.log.to_abandon.iter().chain(&self.log.abandoning).cloned());
        let mut done = of(|stage| matches!(stage, Stage::Remembering(_)));
        // Of messages that are not held any more, too.
        let told = self.log.to_remember.iter().chain(self.log.asked.iter().filter(|_| self.log.is_remembering));
        for (_, claim) in told {
            if !done.contains(claim) {
                done.push(claim.clone());
            }
        }
        (done, open)
    }

    pub(crate) fn on_log_answer(&mut self, answer: LogAnswer, now: Moment) {
        self.log.is_asked = false;
        let asked = std::mem::take(&mut self.log.asked);
        let abandoning = std::mem::take(&mut self.log.abandoning);
        let transacting = std::mem::take(&mut self.log.transacting);
        let error = match answer {
            LogAnswer::Transacted(Ok(ends)) => {
                if let Some(why) =
                    ends.iter().find_map(|end| if let PieceEnd::Away(why) = end { Some(why) } else { None })
                {
                    tracing::warn!(why, "what a handler needs is away: its message waits, and is not blamed");
                }
                for (ticket, end) in transacting.into_iter().zip(ends) {
                    self.on_piece(ticket, end, now);
                }
                return;
            }
            LogAnswer::Transacted(Err(error)) => {
                for ticket in transacting {
                    self.on_piece(ticket, PieceEnd::NotBegun, now);
                }
                error
            }
            LogAnswer::Abandoned(Ok(())) => return,
            LogAnswer::Remembered(Ok(standings)) => return self.on_remembered(asked, standings, now),
            LogAnswer::Admitted(Ok(admissions)) => {
                for ((ticket, claim), admission) in asked.into_iter().zip(admissions) {
                    if self.held.contains_key(&ticket) {
                        self.on_admission(ticket, admission, now);
                    } else if admission == Admission::Fresh {
                        self.log.to_abandon.push(claim);
                    }
                }
                return;
            }
            LogAnswer::Abandoned(Err(error)) => {
                self.log.to_abandon.extend(abandoning);
                error
            }
            LogAnswer::Remembered(Err(error)) => {
                self.log.to_remember.splice(0..0, asked);
                error
            }
            LogAnswer::Admitted(Err(error)) => {
                for (ticket, claim) in asked.into_iter().rev() {
                    // What has lost its channel comes again, and is asked for then. It may be claimed all the same.
                    if self.is_lost(ticket) {
                        self.unbegin(ticket);
                    }
                    match self.held.contains_key(&ticket) {
                        true => self.log.to_admit.insert(0, (ticket, claim)),
                        false => self.log.to_abandon.push(claim),
                    }
                }
                error
            }
        };
        tracing::warn!(%error, pause = ?PAUSE, "nothing is begun or acknowledged until the log answers");
        self.log.paused_until = Some(now.at + PAUSE);
    }

    /// A message is ready to be handled in a transaction, as it stands; what nobody handles was parked before.
    fn piece(&self, ticket: Ticket) -> Option<Piece> {
        let held = self.held.get(&ticket)?;
        let (handler, context) = self.work_for(held)?;
        Some(Piece { id: held.id.clone(), handler, context })
    }

    fn on_piece(&mut self, ticket: Ticket, end: PieceEnd, now: Moment) {
        if !self.held.contains_key(&ticket) {
            return;
        }
        match end {
            PieceEnd::Ended(result) => self.on_result(ticket, result, now),
            PieceEnd::AlreadyHandled => self.on_admission(ticket, Admission::AlreadyHandled, now),
            PieceEnd::InFlight => self.on_admission(ticket, Admission::InFlight, now),
            PieceEnd::Away(_) => {
                self.busy -= 1;
                self.ask_again(ticket, now);
            }
            PieceEnd::NotBegun if self.is_lost(ticket) || !self.may_handle() => self.unbegin(ticket),
            PieceEnd::NotBegun => self.log.to_transact.push(ticket),
        }
    }

    /// What waits to be asked for is not, as its channel is gone, or the consumer stops.
    pub(super) fn ask_for_nothing_more(&mut self) {
        for (ticket, claim) in std::mem::take(&mut self.log.to_admit) {
            // It may be claimed, and the answer was lost.
            self.log.to_abandon.push(claim);
            self.unbegin(ticket);
        }
        for ticket in std::mem::take(&mut self.log.to_transact) {
            self.unbegin(ticket);
        }
    }

    fn on_remembered(&mut self, remembered: Vec<(Ticket, Claim)>, standings: Vec<Standing>, now: Moment) {
        for ((ticket, _), standing) in remembered.into_iter().zip(standings) {
            let Some(held) = self.held.get_mut(&ticket) else { continue };
            let Stage::Remembering(end) = std::mem::replace(&mut held.stage, Stage::Waiting) else { continue };
            match standing {
                Standing::Stood => self.finish(ticket, end, now),
                Standing::TakenOver => {
                    self.counts.taken_over(1);
                    tracing::warn!(
                        message = held.name(),
                        "a claim had run out, and another consumer has taken the message over: it was handled here too"
                    );
                    self.ask_again(ticket, now);
                }
            }
        }
    }
}

/// Those that are the first with their id, and the others, which have to wait: in one call ids differ.
fn first_of_each<T>(waiting: Vec<T>, id: impl Fn(&T) -> Option<&HandledId>) -> (Vec<T>, Vec<T>) {
    let is_first: Vec<bool> = {
        let mut seen = BTreeSet::new();
        waiting.iter().map(|item| id(item).is_none_or(|id| seen.insert(id))).collect()
    };
    let mut is_first = is_first.into_iter();
    waiting.into_iter().partition(|_| is_first.next().unwrap_or(true))
}

/// How long a log that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);
