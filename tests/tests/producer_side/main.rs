//! What a producer promises, on real brokers. One program for all of these files: they share its nodes.

mod addressing_out;
mod back_pressure;
mod delaying;
mod expiring;
mod futures_dropped;
mod holes;
mod pairing;
mod producer_faults;
mod producer_program;
mod producing;
mod requesting;
mod telemetry;
