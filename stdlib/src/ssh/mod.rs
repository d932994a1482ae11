//! Module `ssh`.
