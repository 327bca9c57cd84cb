//! What a producer promises while things go wrong under load, on nodes of its own. One program for all of these files: they run
//! side by side.

mod away;
mod in_turn;
