//! The whole kit end to end: journeys, faults, programs.

pub mod programs;
