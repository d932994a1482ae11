//! Proxmox VE: config strings, UPIDs, ownership marker.
pub mod marker;
pub mod props;
pub mod upid;
