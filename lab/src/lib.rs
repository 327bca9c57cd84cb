//! A broker of your own, faults on demand, the ledger that judges, and the lessons.
//!
//! - [`broker`]: a private RabbitMQ node that may be killed, restarted, stopped in its tracks and starved of
//!   memory, because nobody else uses it;
//! - [`faults`]: a TCP proxy between a program and that node that cuts, stalls, swallows and delays;
//! - [`fetched`]: what the lab and the tests fetch for themselves, once, without root;
//! - [`ledger`]: what was attempted, what the broker confirmed, what was handled, and what that says about the
//!   guarantees;
//! - [`lessons`]: five, each without and then with a guarantee, and two that compare.

pub mod broker;
pub mod faults;
pub mod fetched;
pub mod ledger;
pub mod lessons;
