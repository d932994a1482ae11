//! Proxmox VE: config strings, UPIDs, ownership marker, what a running VM takes over.
pub mod live;
pub mod marker;
pub mod props;
pub mod upid;
