//! Placeholder until the routing benchmark lands.
fn main() {}
