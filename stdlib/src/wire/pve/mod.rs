//! Proxmox VE: config strings, UPIDs, ownership marker.
pub mod marker;
