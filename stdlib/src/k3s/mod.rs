//! Module `k3s`.
