//! Module `kubernetes`.
