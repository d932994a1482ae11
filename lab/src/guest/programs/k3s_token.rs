//! `k3s token …`: the server token's rotation, and bootstrap tokens, which are Secrets. Grade: source (K3s).
use serde_json::{Value, json};

use super::k3s_admin::{fatal, say};
use super::k3s_check::columns;
use super::{Call, duration};
use crate::kube::UnitState;
use crate::kube::cx::{Cx, with_cluster};
use crate::kube::k3s::tokens;
use crate::kube::store::meta;
use crate::kube::text::{b64, s, stamp, unb64};

const GROUP: &str = "system:bootstrappers:k3s:default-node-token";
const KIND: &str = "bootstrap.kubernetes.io/token";

pub(super) async fn token(c: &mut Call) -> i32 {
    match c.args.get(1).map(String::as_str) {
        Some("rotate") => rotate(c).await,
        Some("create") => create(c),
        Some("list") => list(c),
        Some("delete") => delete(c),
        Some("generate") => {
            let text = c.world(tokens::fresh);
            c.line(&text);
            0
        }
        other => {
            let what = format!("token {}", other.unwrap_or_default());
            c.unsimulated(&what)
        }
    }
}

async fn rotate(c: &mut Call) -> i32 {
    let old = c.value(&["--token", "-t"]).or_else(|| c.env.get("K3S_TOKEN").cloned()).unwrap_or_default();
    let new = c.value(&["--new-token"]).unwrap_or_default();
    c.pause(1500).await;
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    match lab.with(|w| tokens::rotate(&lab, w, vmid, &old, &new)) {
        Ok(()) => {
            c.line("WARNING: Recommended to keep a record of the old token. If restoring from a snapshot, you must use the token associated with that snapshot.");
            c.line("Token rotated, restart k3s nodes with new token");
            0
        }
        Err(e) => fatal(c, &e),
    }
}

/// Works on the cluster of this server, as its administrator's kubeconfig lets root do.
fn on_cluster<T>(c: &mut Call, f: impl FnOnce(&mut Cx) -> T) -> Result<T, i32> {
    if !c.must_be_root("open /etc/rancher/k3s/k3s.yaml: permission denied") {
        return Err(1);
    }
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    let done = c.world(|w| {
        let p = w.k3s.get(&vmid).filter(|p| p.unit == Some(UnitState::Active))?;
        let id = p.cluster.clone().filter(|id| crate::kube::hooks::api_up(w, id, vmid))?;
        with_cluster(&lab, w, &id, f)
    });
    done.ok_or_else(|| fatal(c, "dial tcp 127.0.0.1:6443: connect: connection refused"))
}

fn create(c: &mut Call) -> i32 {
    let named = c.args.get(2).filter(|a| !a.starts_with('-')).cloned();
    let text = named.unwrap_or_else(|| c.world(tokens::fresh));
    let Some((id, secret)) = tokens::parts(&text).map(|(a, b)| (a.to_owned(), b.to_owned())) else {
        return fatal(
            c,
            &format!(
                "the bootstrap token {text:?} was not of the form \"\\\\A([a-z0-9]{{6}})\\\\.([a-z0-9]{{16}})\\\\z\""
            ),
        );
    };
    let ttl = c.value(&["--ttl"]).unwrap_or_else(|| "24h0m0s".to_owned());
    let Some(ttl) = duration(&ttl).or_else(|| go_duration(&ttl)) else {
        return fatal(c, &format!("invalid value \"{ttl}\" for flag -ttl: parse error"));
    };
    let about = c.value(&["--description"]).unwrap_or_default();
    let groups = c.value(&["--groups"]).unwrap_or_else(|| GROUP.to_owned());
    let made = on_cluster(c, |cx| {
        let name = format!("bootstrap-token-{id}");
        if cx.get("secrets", "kube-system", &name).is_some() {
            return Err(format!("a token with id {id:?} already exists"));
        }
        let coded = |t: &str| b64(t.as_bytes());
        let mut data = json!({"token-id": coded(&id), "token-secret": coded(&secret), "auth-extra-groups": coded(&groups),
            "usage-bootstrap-authentication": coded("true"), "usage-bootstrap-signing": coded("true")});
        if !about.is_empty() {
            data["description"] = json!(coded(&about));
        }
        if ttl > 0 {
            data["expiration"] = json!(coded(&stamp(cx.now() + ttl)));
        }
        cx.create(json!({"apiVersion": "v1", "kind": "Secret", "type": KIND, "data": data,
            "metadata": {"name": name, "namespace": "kube-system"}}));
        Ok(format!("K10{}::{id}.{secret}", cx.c.id))
    });
    match made {
        Ok(Ok(token)) => {
            c.line(&token);
            0
        }
        Ok(Err(why)) => fatal(c, &why),
        Err(code) => code,
    }
}

/// `1h30m0s` in milliseconds; `0` lasts for ever.
fn go_duration(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|ch: char| !ch.is_ascii_digit())?;
        let n: u64 = rest[..end].parse().ok()?;
        let unit = match rest[end..].chars().next()? {
            'h' => 3_600_000,
            'm' => 60_000,
            's' => 1000,
            _ => return None,
        };
        total = total.checked_add(n.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    Some(total)
}

/// A value of a Secret as text.
fn value(secret: &Value, key: &str) -> String {
    let raw = s(secret, &format!("/data/{key}"));
    unb64(raw).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

fn list(c: &mut Call) -> i32 {
    let found = on_cluster(c, |cx| {
        let all: Vec<Value> =
            cx.list_in("secrets", "kube-system").into_iter().filter(|o| s(o, "/type") == KIND).cloned().collect();
        (all, cx.now())
    });
    let (all, now) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for o in &all {
        let end = value(o, "expiration");
        let left = meta::parse_time(&end).map(|t| t.saturating_sub(now) / 1000);
        let ttl = left.map_or_else(|| "<forever>".to_owned(), short);
        let used =
            ["authentication", "signing"].into_iter().filter(|u| value(o, &format!("usage-bootstrap-{u}")) == "true");
        let or = |t: String, none: &str| if t.is_empty() { none.to_owned() } else { t };
        rows.push(vec![
            value(o, "token-id"),
            ttl,
            or(end, "<never>"),
            or(used.collect::<Vec<_>>().join(","), "<none>"),
            or(value(o, "description"), "<none>"),
            or(value(o, "auth-extra-groups"), "<none>"),
        ]);
    }
    columns(c, &rows, 10, 3);
    0
}

/// A duration by its greatest unit: `23h`.
fn short(secs: u64) -> String {
    match secs {
        n if n < 60 => format!("{n}s"),
        n if n < 3600 => format!("{}m", n / 60),
        n if n < 86_400 => format!("{}h", n / 3600),
        n => format!("{}d", n / 86_400),
    }
}

fn delete(c: &mut Call) -> i32 {
    let names: Vec<String> = c.args.iter().skip(2).filter(|a| !a.starts_with('-')).cloned().collect();
    if names.is_empty() {
        return fatal(c, "missing argument; 'token delete' is missing token");
    }
    for given in names {
        let id = given.rsplit("::").next().unwrap_or_default().split('.').next().unwrap_or_default().to_owned();
        let name = format!("bootstrap-token-{id}");
        let gone = on_cluster(c, |cx| {
            let there = cx.get("secrets", "kube-system", &name).is_some();
            cx.delete("secrets", "kube-system", &name);
            there
        });
        match gone {
            Ok(true) => c.line(&format!("bootstrap token {id:?} deleted")),
            Ok(false) => {
                say(c, "fatal", &format!("failed to delete bootstrap token {id:?}: secrets {name:?} not found"));
                return 1;
            }
            Err(code) => return code,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::go_duration;

    #[test]
    fn durations_are_read_and_too_long_ones_refused() {
        assert_eq!(go_duration("1h30m5s"), Some(5_405_000));
        assert_eq!(go_duration("0"), Some(0));
        for bad in ["5", "1x", "99999999999999999999h", "9999999999999999h", "18446744073709551s1h"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
