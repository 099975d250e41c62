//! memwatch's chores.
fn main() {}
