//! A broker of your own, faults on demand, the ledger that judges, and the lessons.
//!
//! - [`broker`]: a private RabbitMQ node that may be killed, restarted, stopped in its tracks and starved of
//!   memory, because nobody else uses it;
//! - [`faults`]: a TCP proxy between a program and that node that cuts, stalls, swallows and delays;
//! - [`fetched`]: what the lab and the tests fetch for themselves, once, without root;
//! - [`ledger`]: what was attempted, what the broker confirmed, what was handled, and what that says about the
//!   guarantees;
//! - [`lessons`]: five, each without and then with a guarantee, and two that compare;
//! - [`postgres`]: a private PostgreSQL server that may be killed, paused and started again;
//! - [`small_disk`]: a folder that runs full for real.

pub mod broker;
pub mod faults;
pub mod fetched;
pub mod ledger;
pub mod lessons;
pub mod postgres;
pub mod small_disk;
