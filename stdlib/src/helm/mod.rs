//! Module `helm`.
