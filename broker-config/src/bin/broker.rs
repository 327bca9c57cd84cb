//! The program `broker`.

fn main() {}
