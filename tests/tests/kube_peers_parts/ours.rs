//! Our own client beside the others: a forwarded port that another program uses.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use gpuhost_tests::watch::{PATIENCE, Watch};

use super::{Served, holds};

const SCRIPT: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
cluster.apply(#{ apiVersion: "v1", kind: "Pod", metadata: #{ name: "ours" }, spec: #{
    containers: [#{ name: "web", image: "nginx:1.27", ports: [#{ containerPort: 80 }] }],
} });
cluster.wait("pod", "ours", "condition=Ready", 10.minutes);
print(`PORT ${cluster.port_forward("ours", 80, #{})} END`);
sleep(10.hours);
"#;

/// The port leads into the pod for as long as the run lives.
pub fn forwarded(lab: &Served) {
    let script = lab.file("forward.rhai", SCRIPT).display().to_string();
    let mut run = lab.bench.command(&["run", &script, "--lab", "--json", "--yes"]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _watch = Watch::over(&child, PATIENCE);
    let mut said = String::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.inspect(|l| said += &format!("{l}\n")).find_map(|l| {
        let rest = l.split_once("PORT ")?.1;
        rest.split_once(" END")?.0.parse::<u16>().ok()
    });
    let answer = port.map(|port| {
        let mut s = TcpStream::connect(("127.0.0.1", port)).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        s.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        s.read_to_string(&mut text).map(|_| text)
    });
    child.kill().ok();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).ok();
    child.wait().ok();
    match answer {
        Some(text) => holds(&text.unwrap(), &["200 OK", "Welcome to nginx!"]),
        None => panic!("no port in\n{said}\n{err}"),
    }
}
