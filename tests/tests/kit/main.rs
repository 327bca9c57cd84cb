//! The kit as a whole, on real brokers. One program for all of these files: they share its nodes.

mod addressing;
mod broker_frozen;
mod examples;
mod own_queue_lost;
mod topic_flights;
mod topology;
mod topology_lost;
