//! Build, run and test Hippos.
fn main() {}
