//! The program `consumer`.

fn main() {}
