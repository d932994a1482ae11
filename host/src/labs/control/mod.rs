//! The control connection of a served lab: other processes share its clock and learn its routes.
//!
//! Lines of text over loopback. Client: `hello`, `now`, `mark N`, `sleep ID DUE`, `deadline ID DUE`,
//! `cancel ID`, `ack ID`. Server: `hello JSON`, `now MS`, `marked MS`, `fired ID MS`, `up ADDR AT`, `down ADDR`.
//! Everything that one connection holds is released when it ends, however it ends.
pub mod client;
pub mod server;

#[cfg(test)]
mod tests;
