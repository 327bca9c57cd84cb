//! What a consumer promises, on real brokers. One program for all of these files: they share its nodes.

mod answering;
mod breaking;
mod consumer_connection_lost;
mod consumer_observed;
mod consumer_program;
mod consumer_subscription_lost;
mod consuming;
mod consuming_in_order;
mod dead_letters;
mod dead_letters_kept;
mod flights;
mod handled_logs;
mod suspects;
mod unfit_properties;
