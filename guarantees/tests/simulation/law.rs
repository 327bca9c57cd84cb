//! What is promised of every message, whatever broker and connection do. Each of these is checked in every history.

/// A law of the confirm window, or of the shell's part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    /// Each message handed in ends once, and none is without an end.
    OneOutcomeEach,
    /// `Confirmed`: the broker routed its last sending, and every queue that it was routed to took it.
    ConfirmedIsOnItsQueues,
    /// `Unroutable`: its last sending matched no queue, or there was no exchange for it. Not of any other.
    UnroutableReachedNoQueue,
    /// `Refused`: a queue did not take its last sending, or the broker did not allow it. Not of any other.
    RefusedWasRefused,
    /// `Unknown` is said at the deadline or later, unless the producer gives up.
    UnknownAtItsDeadline,
    /// At the deadline or soon after, when time is looked at, nothing is left that has passed it.
    NothingPastItsDeadline,
    /// A channel is ended only for a message that is past its deadline without an answer.
    KilledForALateAnswer,
    /// The number of tries is the number of sendings.
    TriesAreSendings,
    /// On each channel: what is sent again comes first, in the order of the first sendings, and each message once.
    OldestFirst,
    /// On each queue, the first copies of the messages of one key lie in the order in which they were handed in.
    ///
    /// Promised for those that ended `Confirmed`, and of them for those that this queue took whenever the broker read
    /// them. What it did not take when it was read first (it was full, it was not bound) while it took younger ones, and the
    /// answer was lost with the channel, is sent again behind them: that order comes from the numbers that the
    /// resequencer reads.
    OrderOnTheQueue,
    /// What has ended reaches no queue later, unless through a connection that was cut: its bytes may be read late.
    EndedLandsNoMore,
    /// A message whose nack or return was heard is not sent again.
    CertainIsNotSentAgain,
    /// Two messages of one id are not held at the same time: which one a return is for could not be told.
    OneOfAnId,
    /// The numbers of held messages, their bytes, unanswered publishes and waiting resends are what a naive count says.
    CountsAreTrue,
    /// Nothing new is let in past the limits, and never more than twice the messages are held. What is sent again is not
    /// held back: after a loss, twice as many as the limit says can be without an answer.
    LimitsHold,
    /// The number of a sending is never used again, also not on another channel.
    PublishesAreNew,
    /// With all ended the window is idle and wants to be woken for nothing.
    IdleAtTheEnd,
}

impl Law {
    pub(crate) const ALL: [Self; 17] = [
        Self::OneOutcomeEach,
        Self::ConfirmedIsOnItsQueues,
        Self::UnroutableReachedNoQueue,
        Self::RefusedWasRefused,
        Self::UnknownAtItsDeadline,
        Self::NothingPastItsDeadline,
        Self::KilledForALateAnswer,
        Self::TriesAreSendings,
        Self::OldestFirst,
        Self::OrderOnTheQueue,
        Self::EndedLandsNoMore,
        Self::CertainIsNotSentAgain,
        Self::OneOfAnId,
        Self::CountsAreTrue,
        Self::LimitsHold,
        Self::PublishesAreNew,
        Self::IdleAtTheEnd,
    ];
}

/// A law, and how it was broken.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) what: String,
}
