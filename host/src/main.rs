//! gpuhost.
fn main() {}
