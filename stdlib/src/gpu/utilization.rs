//! What the cards are doing right now, as their driver sees it.
use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::op::Op;
use crate::ssh::Host;

const QUERY: &str = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw";
/// Runs the driver's `nvidia-smi`: a driver container brings its own, below its root.
pub(super) const SMI: &str =
    "smi=nvidia-smi; [ -x /run/nvidia/driver/usr/bin/nvidia-smi ] && smi='chroot /run/nvidia/driver nvidia-smi'; $smi";

/// One row per card.
#[must_use]
pub fn read_rows(node: &str, text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|l| {
            let f: Vec<&str> = l.split(',').map(str::trim).collect();
            let number = |i: usize| f.get(i).and_then(|t| t.parse::<f64>().ok());
            Some(json!({
                "node": node, "index": number(0)?, "product": f.get(1)?, "busy_percent": number(2),
                "memory_used_mib": number(3), "memory_mib": number(4), "celsius": number(5), "watts": number(6),
            }))
        })
        .collect()
}

/// Asks the driver of every host at the same time.
///
/// # Errors
/// `unreachable`; `failed` where there is no driver.
pub async fn utilization(ctx: &Ctx, hosts: &[Host]) -> OpResult<Vec<Value>> {
    let names: Vec<_> = hosts.iter().map(Host::name).collect();
    let op = Op::read("gpu", "list_utilization", names.join(","));
    ctx.run_op(op, |s| async move {
        let ask = |h: Host| {
            let ctx = s.ctx().clone();
            async move {
                let out = h.read(&ctx, &format!("{SMI} --query-gpu={QUERY} --format=csv,noheader,nounits")).await?;
                OpResult::Ok(read_rows(h.name(), &out.stdout))
            }
        };
        let mut rows = Vec::new();
        for r in s.ctx().clock.join_all(hosts.iter().cloned().map(ask).collect()).await {
            rows.extend(r?);
        }
        Ok(rows)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let r = read_rows("g", "0, NVIDIA A100-PCIE-40GB, 37, 1024, 40960, 41, 120.5\nNVIDIA-SMI has failed\n");
        assert_eq!(r.len(), 1);
        assert_eq!((r[0]["busy_percent"].as_f64(), r[0]["node"].as_str()), (Some(37.0), Some("g")));
    }
}
