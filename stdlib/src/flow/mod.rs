//! Module `flow`.
