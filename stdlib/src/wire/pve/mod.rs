//! Proxmox VE: config strings, UPIDs, ownership marker.
