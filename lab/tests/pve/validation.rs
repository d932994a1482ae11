//! Which methods the lab serves, and whether it refuses parameters as their schema says: every declared
//! parameter of every method of the mission is sent with a wrong value, all at once.
use gpuhost_lab::spec::Spec;
use serde_json::{Map, Value, json};

use crate::bed::Bed;
use crate::pve_schema::schema;

const UNKNOWN: &str = "property is not defined in schema and the schema does not allow additional properties";
const MISSING: &str = "property is missing and it is not optional";

/// Parameters of which the lab knows more than the schema, or that it takes apart itself.
const OTHERWISE: &[(&str, &str)] = &[
    ("POST /access/ticket", "every refused login looks alike"),
    ("POST /nodes/{node}/storage/{storage}/upload", "its parameters come in a form with a file"),
];

async fn bed(release: &str) -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.pve_version = release.to_owned();
    spec.token_id = "root@pam!lab".into();
    let bed = Bed::with(spec).await;
    bed.lab.with(|w| w.pve.access.users.get_mut("root@pam").unwrap().tokens.get_mut("lab").unwrap().privsep = false);
    bed.call("POST", "/pools", Some(json!({ "poolid": "px" }))).await.data();
    bed
}

fn fill(template: &str, upid: &str) -> String {
    let mut path = template.to_owned();
    for (k, v) in [
        ("{node}", "pve1"),
        ("{vmid}", "100"),
        ("{storage}", "local"),
        ("{upid}", upid),
        ("{poolid}", "px"),
        ("{userid}", "gpuhost@pve"),
        ("{tokenid}", "deploy"),
        ("{roleid}", "PVEVMUser"),
        ("{id}", "m1"),
        ("{snapname}", "s1"),
        ("{volume}", "local:iso/a.iso"),
        ("{sid}", "vm:100"),
        ("{group}", "g1"),
        ("{rule}", "r1"),
        ("{pci-id-or-mapping}", "m1"),
    ] {
        path = path.replace(k, v);
    }
    path
}

/// A wrong value for a parameter, and what the server says of it; no message where the schema alone cannot tell.
fn wrong(p: &Value) -> (Value, Option<String>) {
    let text = |t: &str| json!(t);
    if let Some(list) = p["enum"].as_array() {
        let names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        let why = format!("value 'zz' does not have a value in the enumeration '{}'", names.join(", "));
        // A named format is looked at first.
        return (text("zz"), p["format"].is_null().then_some(why));
    }
    match p["type"].as_str() {
        Some(t @ ("integer" | "number")) => (text("x"), Some(format!("type check ('{t}') failed - got 'x'"))),
        Some("boolean") => (text("maybe"), Some("type check ('boolean') failed - got 'maybe'".into())),
        Some("string") => match p["maxLength"].as_u64().filter(|n| *n < 4000) {
            Some(n) => {
                let long = "a".repeat(usize::try_from(n).unwrap() + 1);
                (text(&long), Some(format!("value may only be {n} characters long")))
            }
            None => (text("x"), None),
        },
        _ => (text("x"), None),
    }
}

async fn ask(bed: &Bed, method: &str, path: &str, params: &Map<String, Value>) -> (u16, Value) {
    if method == "GET" || method == "DELETE" {
        let enc = |v: &Value| {
            let t = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            t.bytes().map(|b| format!("%{b:02X}")).collect::<String>()
        };
        let query: Vec<String> = params.iter().map(|(k, v)| format!("{k}={}", enc(v))).collect();
        let a = bed.call(method, &format!("{path}?{}", query.join("&")), None).await;
        return (a.code, a.body);
    }
    let a = bed.call(method, path, Some(Value::Object(params.clone()))).await;
    (a.code, a.body)
}

async fn refused(release: &str) {
    let Some(all) = schema(release, true) else {
        println!("skipped: no API schema beside the checkout");
        return;
    };
    let bed = bed(release).await;
    let (exit, _) = bed.task("POST", "/nodes/pve1/qemu/100/status/start", None).await;
    assert!(!exit.is_empty());
    let upid = bed.get("/nodes/pve1/tasks?source=all").await[0]["upid"].as_str().unwrap().to_owned();
    let (mut bad, mut absent, mut checked, mut served) = (Vec::new(), Vec::new(), 0, 0);
    for e in &all {
        let (method, template) = (e["m"].as_str().unwrap(), e["p"].as_str().unwrap());
        let name = format!("{method} {template}");
        let path = fill(template, &upid);
        let declared = e["par"]["properties"].as_object().cloned().unwrap_or_default();
        let own = declared.into_iter().filter(|(k, _)| !template.contains(&format!("{{{k}}}")));
        let own: Vec<(String, Value)> = own.map(|(k, p)| (k.replace("[n]", "0"), p)).collect();
        let unknown = Map::from_iter([("zz-unknown".to_owned(), json!("1"))]);
        let (code, body) = ask(&bed, method, &path, &unknown).await;
        if code == 501 {
            absent.push(name);
            continue;
        }
        served += 1;
        if OTHERWISE.iter().any(|o| o.0 == name) || e["par"]["additionalProperties"] != 0 {
            continue;
        }
        let mut expect = |at: &str, got: &Value, want: &str| {
            checked += 1;
            if got != want {
                bad.push(format!("{name}: {at}: {got} instead of {want:?}"));
            }
        };
        expect("zz-unknown", &body["errors"]["zz-unknown"], UNKNOWN);
        for (k, p) in own.iter().filter(|(_, p)| p["optional"] != 1) {
            let _ = p;
            expect(k, &body["errors"][k], MISSING);
        }
        let mut params = unknown;
        params.extend(own.iter().map(|(k, p)| (k.clone(), wrong(p).0)));
        let (_, body) = ask(&bed, method, &path, &params).await;
        for (k, p) in &own {
            let got = &body["errors"][k];
            match wrong(p).1 {
                Some(want) => expect(k, got, &want),
                None if got == UNKNOWN => expect(k, got, "(anything else)"),
                None => {}
            }
        }
    }
    println!("{release}: served {served} of {} methods of the mission, {checked} refusals compared", all.len());
    for a in &absent {
        println!("  not served: {a}");
    }
    for b in &bad {
        println!("  {b}");
    }
    assert!(bad.is_empty(), "{release}: {} refusals differ, see above", bad.len());
    assert!(absent.is_empty(), "{release}: {} methods are not served", absent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_parameters_are_refused_as_the_schema_of_9_1_says() {
    refused("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_parameters_are_refused_as_the_schema_of_8_4_says() {
    refused("8.4").await;
}

/// Whether a method declares a right on a path that the request's own path names.
fn guarded(e: &Value) -> bool {
    if e["perm"]["user"] == "all" {
        return false;
    }
    let check = &e["perm"]["check"];
    let first = if check[0] == "and" { &check[1] } else { check };
    let Some(place) = first[1].as_str().filter(|_| first[0] == "perm") else { return false };
    let mut names = place.split('{').skip(1).filter_map(|p| p.split('}').next());
    names.all(|n| e["p"].as_str().is_some_and(|p| p.contains(&format!("{{{n}}}"))))
}

/// As on the server missing rights are told before wrong parameters.
async fn rights_first(release: &str) {
    let Some(all) = schema(release, true) else {
        println!("skipped: no API schema beside the checkout");
        return;
    };
    let bed = bed(release).await;
    bed.lab.with(|w| {
        let t = gpuhost_lab::pve::state::Token { secret: "s".into(), privsep: true, ..Default::default() };
        w.pve.access.users.get_mut("root@pam").unwrap().tokens.insert("none".into(), t);
    });
    let none = bed.token("root@pam!none", "s");
    let unknown = Map::from_iter([("zz-unknown".to_owned(), json!("1"))]);
    let (mut bad, mut seen) = (Vec::new(), 0);
    for e in all.iter().filter(|e| guarded(e)) {
        let (method, template) = (e["m"].as_str().unwrap(), e["p"].as_str().unwrap());
        if template.ends_with("/upload") {
            continue;
        }
        let (code, body) = ask(&none, method, &fill(template, ""), &unknown).await;
        seen += 1;
        if code != 403 {
            bad.push(format!("{method} {template}: {code} {body}"));
        }
    }
    println!("{release}: {seen} methods with a declared right, {} of them look at parameters first", bad.len());
    assert!(seen > 70 && bad.is_empty(), "{release}:\n{}", bad.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_told_before_wrong_parameters() {
    rights_first("9.1").await;
    rights_first("8.4").await;
}
