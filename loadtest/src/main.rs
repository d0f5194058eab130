//! Open-loop memcached load generator and trace replay.
fn main() {}
