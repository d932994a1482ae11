//! Module `gpu`.
