//! `gpu`: passthrough checks, the operator on K3s, inventory, test and diagnosis.
mod diagnose;
mod inventory;
mod lasting;
mod mig;
mod operator;
mod passthrough;
mod patterns;
mod rollout;
mod script;
mod stages;
mod test;
mod upgrade;
mod utilization;
mod values;

use crate::core::module::{ModuleDef, fn_options};

pub use diagnose::{diagnose, examine};
pub use inventory::{Amounts, Inventory, NodeGpus, RESOURCE, inventory, is_gpu};
pub use mig::{MigOptions, check_config, ensure_mig};
pub use operator::{OperatorOptions, ensure_operator, policy_trouble};
pub use passthrough::{device_problems, mapping_entries, passthrough_report, read_devices};
pub use patterns::{Mend, Pattern, explain_log};
pub use stages::{Broken, first_broken};
pub(crate) use test::short_id;
pub use test::{TestOptions, TestResult, run_test, test_pod};
pub use upgrade::upgrading;
pub use utilization::{read_rows, utilization};
pub use values::{DROP_IN, Fit, Parts, Sharing, check_driver, check_values, operator_values};

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    ModuleDef {
        name: "gpu",
        docs: "GPUs from the hypervisor's PCI slots to `nvidia.com/gpu` of a pod. The operator gets values that fit \
               K3s; each agent is restarted once when K3s has not detected the nvidia runtime.",
        module: script::module().into(),
        options: vec![
            fn_options("ensure_operator", "options", "OperatorOptions", OperatorOptions::FIELDS),
            fn_options("ensure_mig", "options", "MigOptions", MigOptions::FIELDS),
            fn_options("run_test", "options", "TestOptions", TestOptions::FIELDS),
        ],
    }
}
