//! Module `nfs`.
