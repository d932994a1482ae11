//! The Kubernetes API of the lab, request by request.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test stops at the first surprise
mod applied;
mod bed;
mod bodies;
mod cards;
mod controllers;
mod definitions;
mod filled;
mod groups;
mod images;
mod insides;
mod k3s;
mod machinery;
mod networks;
mod nodes;
mod placing;
mod policies;
mod real;
mod recorded;
mod refused;
mod rest;
mod rights;
mod rollouts;
mod scale;
mod validity;
mod wire;
mod workloads;
