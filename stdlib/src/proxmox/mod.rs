//! Module `proxmox`.
