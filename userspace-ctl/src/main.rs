//! Talks to a loaded Hippos through /dev/hippos.
fn main() {}
