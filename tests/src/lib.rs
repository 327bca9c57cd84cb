//! What the tests of the whole kit share.

pub mod consuming;
pub mod effects;
pub mod foreign_clients;
pub mod handled_logs;
pub mod programs;
pub mod queues;
pub mod raw_amqp;
pub mod recorded;
pub mod requester;
pub mod scale;
pub mod subscribers;
pub mod work_queues;
