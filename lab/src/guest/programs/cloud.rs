//! `cloud-init`.
use futures::future::BoxFuture;
use serde_json::json;

use super::{Call, Program, later};
use crate::guest::state::CloudStatus;

pub(super) const PROGRAMS: &[Program] = &[later("/usr/bin/cloud-init", cloud_init)];

fn cloud_init(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        match c.args.first().map(String::as_str) {
            Some("status") => status(c).await,
            Some("clean") => {
                if !c.must_be_root("Error: cloud-init clean must run as root") {
                    return 1;
                }
                c.guest(|g| {
                    g.instance_id.clear();
                    g.facts.cloud_init = CloudStatus::NotRun;
                });
                if c.has(&["--machine-id"]) {
                    c.m.files.place_file("/etc/machine-id", b"uninitialized\n", 0o444);
                }
                0
            }
            Some("--version" | "-v") => {
                c.line("/usr/bin/cloud-init 22.4.2");
                0
            }
            Some("query") if c.args.get(1).is_some_and(|a| a == "instance_id") => {
                let id = c.guest(|g| g.instance_id.clone()).unwrap_or_default();
                c.line(&id);
                0
            }
            _ => {
                let text = c.args.join(" ");
                c.unsimulated(&text)
            }
        }
    })
}

async fn status(c: &mut Call) -> i32 {
    let wait = c.has(&["--wait", "-w"]);
    loop {
        let status = c.guest(|g| g.cloud_init.clone()).unwrap_or_default();
        if status == CloudStatus::Running && wait {
            c.print(".");
            c.pause(1000).await;
            continue;
        }
        if wait && !c.has(&["--format"]) {
            c.print("\n");
        }
        let (text, errors) = match status {
            CloudStatus::NotRun => ("disabled", Vec::new()),
            CloudStatus::Running => ("running", Vec::new()),
            CloudStatus::Done => ("done", Vec::new()),
            CloudStatus::Error(e) => ("error", e),
        };
        if c.value(&["--format"]).as_deref() == Some("json") {
            let v = json!({"boot_status_code": "enabled-by-generator", "datasource": "nocloud", "detail": "DataSourceNoCloud [seed=/dev/sr0]", "errors": errors, "status": text, "extended_status": text, "schemas": {}});
            c.line(&v.to_string());
        } else {
            c.line(&format!("status: {text}"));
            if c.has(&["--long", "-l"]) {
                c.line(&format!(
                    "boot_status_code: enabled-by-generator\ndetail:\n{}",
                    if errors.is_empty() { "DataSourceNoCloud [seed=/dev/sr0]".to_owned() } else { errors.join("\n") }
                ));
            }
        }
        return i32::from(text == "error");
    }
}
