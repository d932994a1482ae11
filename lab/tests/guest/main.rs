//! Guests of the lab, driven through real SSH connections.
mod bed;
mod boot;
mod disks;
mod openssh;
mod scripts;
mod services;
