//! What a consumer promises while processes die, stop in their tracks and databases go away: each message has one effect. On
//! brokers of its own. One program for all of these files: they run side by side.

mod database_gone;
mod journey;
mod killed;
mod paused;
