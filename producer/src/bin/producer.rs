//! The program `producer`.

fn main() {}
