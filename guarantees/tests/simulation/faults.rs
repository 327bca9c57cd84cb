//! The faults that are planted in the machine, each with the law that it breaks.

use crate::law::Law;

/// A way in which a confirm window could be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An acknowledged message is confirmed at once, though its return may come with another's confirm.
    ConfirmsAtTheAnswer,
    /// Only older publishes are waited for, though the return may ride on a younger one's confirm.
    WaitsForOlderOnly,
    IgnoresReturns,
    /// A return is taken for the message with whose confirm it came.
    TakesAReturnForItsConfirms,
    CallsTheRefusedConfirmed,
    CallsTheConfirmedRefused,
    /// Acknowledged is taken for confirmed when the channel is lost before the return could come.
    ConfirmsWhatTheLossLeftOpen,
    /// The confirm of an earlier sending counts for the one on the live channel.
    HearsOldChannels,
    EndsAMessageTwice,
    ForgetsAMessageOnLoss,
    /// What was lost with its channel is unknown at once, and not sent again.
    SaysUnknownOnLoss,
    CountsNoResend,
    ResendsOutOfOrder,
    /// What is new goes out before what waits to be sent again.
    LetsTheNewOvertake,
    /// At the deadline the message ends and its channel lives on.
    EndsWithoutKilling,
    NeverKills,
    /// A deadline of what only waits to be pronounced ends the channel too.
    KillsForNothing,
    SleepsThroughDeadlines,
    /// A nack that was heard is forgotten with its channel.
    ResendsTheRefused,
    AdmitsAnIdTwice,
    LetsInTooMany,
    LosesCountAtAReturn,
    /// The numbers of publishes begin again with each channel, as tags do.
    RestartsPublishNumbers,
    /// Another message than the one at fault pays for the channel's end.
    WithdrawsAnInnocent,
    WantsToBeWokenForNothing,
}

/// Each fault, and what it does to the promises.
pub(crate) const PLANTED: [(Fault, Law); 31] = [
    (Fault::ConfirmsAtTheAnswer, Law::ConfirmedIsOnItsQueues),
    (Fault::WaitsForOlderOnly, Law::ConfirmedIsOnItsQueues),
    (Fault::IgnoresReturns, Law::ConfirmedIsOnItsQueues),
    (Fault::TakesAReturnForItsConfirms, Law::ConfirmedIsOnItsQueues),
    (Fault::TakesAReturnForItsConfirms, Law::UnroutableReachedNoQueue),
    (Fault::CallsTheRefusedConfirmed, Law::ConfirmedIsOnItsQueues),
    (Fault::CallsTheConfirmedRefused, Law::RefusedWasRefused),
    (Fault::ConfirmsWhatTheLossLeftOpen, Law::ConfirmedIsOnItsQueues),
    (Fault::HearsOldChannels, Law::ConfirmedIsOnItsQueues),
    (Fault::EndsAMessageTwice, Law::OneOutcomeEach),
    (Fault::ForgetsAMessageOnLoss, Law::OneOutcomeEach),
    (Fault::ForgetsAMessageOnLoss, Law::NothingPastItsDeadline),
    (Fault::SaysUnknownOnLoss, Law::UnknownAtItsDeadline),
    (Fault::CountsNoResend, Law::TriesAreSendings),
    (Fault::ResendsOutOfOrder, Law::OldestFirst),
    (Fault::ResendsOutOfOrder, Law::OrderOnTheQueue),
    (Fault::LetsTheNewOvertake, Law::OldestFirst),
    (Fault::LetsTheNewOvertake, Law::OrderOnTheQueue),
    (Fault::EndsWithoutKilling, Law::EndedLandsNoMore),
    (Fault::EndsWithoutKilling, Law::OneOutcomeEach),
    (Fault::NeverKills, Law::NothingPastItsDeadline),
    (Fault::KillsForNothing, Law::KilledForALateAnswer),
    (Fault::SleepsThroughDeadlines, Law::NothingPastItsDeadline),
    (Fault::ResendsTheRefused, Law::CertainIsNotSentAgain),
    (Fault::AdmitsAnIdTwice, Law::OneOfAnId),
    (Fault::LetsInTooMany, Law::LimitsHold),
    (Fault::LosesCountAtAReturn, Law::CountsAreTrue),
    (Fault::RestartsPublishNumbers, Law::PublishesAreNew),
    (Fault::RestartsPublishNumbers, Law::ConfirmedIsOnItsQueues),
    (Fault::WithdrawsAnInnocent, Law::UnroutableReachedNoQueue),
    (Fault::WantsToBeWokenForNothing, Law::IdleAtTheEnd),
];
