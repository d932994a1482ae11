//! The last event of a run, as `--json` prints it and the journal keeps it.
use std::collections::BTreeMap;

use gpuhost_stdlib::core::error::OpError;
use gpuhost_stdlib::core::event::Status;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::labs::calibrate::Expected;

/// One step of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepEnd {
    /// Names of the steps it is in and its own, joined by ` / `.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Changes made inside.
    pub changed: u64,
    /// Seconds of lab or real time.
    pub seconds: f64,
}

/// A run ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finished {
    /// How.
    pub status: Status,
    /// The exit code.
    pub exit: u8,
    /// Whether it took place on the lab.
    pub lab: bool,
    /// Changes made.
    pub changed: u64,
    /// Every step that ended, in that order.
    pub steps: Vec<StepEnd>,
    /// Seconds on this machine's clock.
    pub seconds: f64,
    /// Seconds on the site's clock: lab time on the lab.
    pub site_seconds: f64,
    /// Path of the journal; empty where none is kept.
    pub journal: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<OpError>,
    /// On the lab: what it stood in for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_rehearsed: Option<Vec<String>>,
    /// On the lab: names of the simulated behaviours that it met, by grade.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, Vec<String>>>")]
    pub grades: Option<Value>,
    /// On the lab: how many seconds it may take on hardware, in all and step by step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_hardware: Option<Expected>,
    /// With `--faults`: the faults that struck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<String>>,
    /// In tests: how many places a kill could have hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<u64>,
}
