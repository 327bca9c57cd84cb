//! The kit as a whole, on real brokers. One program for all of these files: they share its nodes.
//! `own_queue_lost` is not among them: a broadcast is refused (nacked) when a listener's queue goes in the middle of it. Nor is
//! `broker_frozen`, which counts the threads of its process.

mod addressing;
mod examples;
mod guarantee_pages;
mod topic_flights;
mod topology;
mod topology_lost;
