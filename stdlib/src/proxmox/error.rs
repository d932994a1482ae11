//! Answers of the API that say no, and what they mean.
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::core::error::{Kind, OpError};

/// What class of failure an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The object does not exist.
    NotFound,
    /// An object of that name or id exists already.
    Exists,
    /// The VM carries a lock such as `clone`.
    Locked(String),
    /// A lock of Proxmox's own could not be had in time: nothing was done.
    LockTimeout,
    /// The object changed since it was read (digest).
    Stale,
    /// The token lacks a privilege.
    Denied {
        /// ACL path; empty when Proxmox does not say.
        path: String,
        /// Privilege.
        privilege: String,
    },
    /// The token is not accepted.
    Unauthorized,
    /// Parameters were refused.
    Invalid,
    /// Another node of the cluster did not answer (595/596), or no connection.
    Unreachable,
    /// The VM does not run.
    NotRunning,
    /// The guest agent does not answer.
    NoAgent,
    /// The VM's config does not have the agent switched on.
    AgentOff,
    /// Protection is on.
    Protected,
    /// It is a template, which neither runs nor has snapshots.
    Template,
    /// The path or method is not known to this server.
    NotImplemented,
    /// Anything else.
    Other,
}

/// A refused or failed request.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// What was asked, for example `POST /pools`.
    pub request: String,
    /// HTTP status; 0 when no answer came.
    pub status: u16,
    /// The server's text.
    pub text: String,
    /// Parameter errors.
    pub errors: BTreeMap<String, String>,
    /// Class.
    pub fault: Fault,
    /// Further causes (transport).
    pub causes: Vec<String>,
    /// The next thing to do, when the class alone does not tell.
    pub hint: Option<String>,
}

/// Result of a request.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// Reads an answer: reason phrase, `message` and `errors` belong together.
    #[must_use]
    pub fn read(request: String, status: u16, reason: &str, body: &Value) -> Self {
        let message = body.get("message").and_then(Value::as_str).unwrap_or("").trim();
        let errors: BTreeMap<String, String> = body
            .get("errors")
            .and_then(Value::as_object)
            .map(|m| {
                m.iter()
                    .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), |s| s.trim().to_owned())))
                    .collect()
            })
            .unwrap_or_default();
        let reason = reason.trim();
        let text = if message.is_empty() { reason } else { message };
        let text = if text.is_empty() { format!("HTTP status {status}") } else { text.to_owned() };
        let mut fault = classify(status, &text, &errors);
        let mut causes = Vec::new();
        // Message and reason mostly say the same; what only the reason knows is kept.
        if !reason.is_empty() && !text.contains(reason) && !is_canonical(status, reason) {
            if fault == Fault::Other {
                fault = classify(status, reason, &errors);
            }
            causes.push(reason.to_owned());
        }
        ApiError { request, status, text, errors, fault, causes, hint: None }
    }

    /// No answer came.
    #[must_use]
    pub fn transport(request: String, text: impl Into<String>, causes: Vec<String>) -> Self {
        ApiError {
            request,
            status: 0,
            text: text.into(),
            errors: BTreeMap::new(),
            fault: Fault::Unreachable,
            causes,
            hint: None,
        }
    }

    /// An answer that says yes and is none of Proxmox's: a proxy's page, half a message.
    #[must_use]
    pub fn strange(request: String, status: u16, why: String) -> Self {
        ApiError {
            request,
            status,
            text: "the answer is not one of the Proxmox API".to_owned(),
            errors: BTreeMap::new(),
            fault: Fault::Other,
            causes: vec![why],
            hint: Some("does a proxy or a login page stand at that address? open it in a browser".to_owned()),
        }
    }

    /// Whether it is of this class.
    #[must_use]
    pub fn is(&self, fault: &Fault) -> bool {
        self.fault == *fault
    }
}

/// Whether a reason phrase is the one that every server sends with this status.
fn is_canonical(status: u16, reason: &str) -> bool {
    reqwest::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()) == Some(reason)
}

/// The class of an answer's text; also used for the exit status of tasks.
#[must_use]
pub fn classify(status: u16, text: &str, errors: &BTreeMap<String, String>) -> Fault {
    let all = || std::iter::once(text).chain(errors.values().map(String::as_str));
    let has = |what: &str| all().any(|t| t.contains(what));
    if status == 401 {
        return Fault::Unauthorized;
    }
    if status == 403 || text.starts_with("Permission check failed") || text.starts_with("only root can") {
        let inner = text.split_once('(').and_then(|(_, r)| r.rsplit_once(')')).map_or("", |(i, _)| i);
        let (path, privilege) = inner.split_once(',').unwrap_or((inner, ""));
        return Fault::Denied { path: path.trim().to_owned(), privilege: privilege.trim().to_owned() };
    }
    if matches!(status, 595 | 596) || has("no quorum") {
        return Fault::Unreachable;
    }
    if status == 501 {
        return Fault::NotImplemented;
    }
    if has("powerdown failed") {
        return Fault::Other;
    }
    if has("got timeout") || has("got lock request timeout") || has("can't lock file") {
        return Fault::LockTimeout;
    }
    if let Some(t) = all().find(|t| t.contains("VM is locked")) {
        let lock = t.split_once("VM is locked (").and_then(|(_, r)| r.split_once(')')).map_or("", |(l, _)| l);
        return Fault::Locked(lock.to_owned());
    }
    if has("checksum mismatch (file change") || has("detected modified configuration") {
        return Fault::Stale;
    }
    if has("already exists") || has("already defined") {
        return Fault::Exists;
    }
    if has("QEMU guest agent is not running") || has("guest agent is not running") {
        return Fault::NoAgent;
    }
    if has("No QEMU guest agent configured") {
        return Fault::AgentOff;
    }
    if has("if it's a template") {
        return Fault::Template;
    }
    if has("protection mode enabled") {
        return Fault::Protected;
    }
    if has("not running") {
        return Fault::NotRunning;
    }
    if has("does not exist")
        || has("no such")
        || has("No such")
        || has("unable to find configuration file")
        || has("not found")
    {
        return Fault::NotFound;
    }
    if status == 400 { Fault::Invalid } else { Fault::Other }
}

impl Fault {
    fn kind(&self) -> Kind {
        match self {
            Fault::NotFound => Kind::NotFound,
            Fault::Exists | Fault::Locked(_) | Fault::Stale | Fault::Protected | Fault::Template => Kind::Conflict,
            Fault::LockTimeout => Kind::Timeout,
            Fault::Denied { .. } | Fault::Unauthorized => Kind::Denied,
            Fault::Invalid => Kind::Invalid,
            Fault::Unreachable => Kind::Unreachable,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Fault::Template => "leave templates out: `pve.list_owned().filter(|vm| vm.kind == \"machine\")`".to_owned(),
            Fault::Unauthorized => "check `proxmox.token_id` and `proxmox.token` in the site file".to_owned(),
            Fault::Denied { path, privilege } if path.starts_with("/mapping/") => format!(
                "grant {privilege} on {path} itself (an entry there replaces what comes from above), or let an \
                 administrator do it under Datacenter, Resource Mappings"
            ),
            Fault::Denied { path, privilege } if !path.is_empty() => {
                format!("grant {privilege} on {path}; `pve.check_permissions()` prints the `pveum` lines")
            }
            Fault::Denied { .. } => "`pve.check_permissions()` names what the token lacks".to_owned(),
            Fault::Locked(l) => {
                format!("wait for the task that holds the lock `{l}`, or look at it in the Proxmox task list")
            }
            Fault::LockTimeout => "Proxmox was busy; run it again".to_owned(),
            Fault::Stale => "somebody else changed it meanwhile; run it again".to_owned(),
            Fault::AgentOff => "switch the agent on: `qm set VMID --agent enabled=1`".to_owned(),
            Fault::Unreachable => {
                "see whether the hypervisor's API answers, then run it again: it compares first and continues"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)?;
        for (k, v) in &self.errors {
            write!(f, "; {k}: {v}")?;
        }
        Ok(())
    }
}

impl From<ApiError> for OpError {
    fn from(e: ApiError) -> Self {
        let mut out = if e.status == 0 {
            OpError::new(e.fault.kind(), e.text.clone())
        } else {
            OpError::new(e.fault.kind(), format!("Proxmox refused `{}`", e.request)).because(e.text.clone())
        };
        for (k, v) in &e.errors {
            out = out.because(format!("{k}: {v}"));
        }
        for c in &e.causes {
            out = out.because(c.clone());
        }
        let between = matches!(e.status, 595 | 596).then(|| {
            "that is between the hypervisor's nodes, not between you and Proxmox: is the other node up? After a change of \
             certificates: `pvecm updatecerts` on it"
                .to_owned()
        });
        out.hint = e.hint.clone().or(between).or_else(|| e.fault.hint());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_fall_into_their_classes() {
        let table = [
            (500, "Configuration file 'nodes/pve1/qemu-server/4444.conf' does not exist", Fault::NotFound),
            (500, "storage 'ghost' does not exist", Fault::NotFound),
            (500, "create pool failed: pool 'x' already exists", Fault::Exists),
            (500, "VM is locked (clone)", Fault::Locked("clone".to_owned())),
            (500, "can't lock file '/var/lock/qemu-server/lock-120.conf' - got timeout", Fault::LockTimeout),
            (500, "cfs-lock 'storage-x' error: got lock request timeout", Fault::LockTimeout),
            (500, "VM quit/powerdown failed - got timeout", Fault::Other),
            (500, "checksum mismatch (file change by other user?)", Fault::Stale),
            (500, "VM 110 is not running", Fault::NotRunning),
            (500, "QEMU guest agent is not running", Fault::NoAgent),
            (500, "you can't take a snapshot if it's a template", Fault::Template),
            (500, "No QEMU guest agent configured", Fault::AgentOff),
            (500, "can't remove VM 111 - protection mode enabled", Fault::Protected),
            (596, "Broken pipe", Fault::Unreachable),
            (595, "No route to host", Fault::Unreachable),
            (401, "Authentication failed!", Fault::Unauthorized),
            (501, "Method 'GET /nope' not implemented", Fault::NotImplemented),
            (500, "cluster not ready - no quorum?", Fault::Unreachable),
        ];
        for (status, text, want) in table {
            let e = ApiError::read("GET /x".to_owned(), status, text, &Value::Null);
            assert_eq!(e.fault, want, "{text}");
        }
        let e = ApiError::read("GET /x".to_owned(), 403, "Permission check failed (/vms/9000, VM.Clone)", &Value::Null);
        assert_eq!(e.fault, Fault::Denied { path: "/vms/9000".to_owned(), privilege: "VM.Clone".to_owned() });
        let op = OpError::from(e);
        assert!(op.hint.unwrap().starts_with("grant VM.Clone on /vms/9000"));
    }

    #[test]
    fn parameter_errors_are_shown_with_their_field() {
        let body =
            json!({"errors": {"vmid": "VM 210 already exists\n"}, "message": "Parameter verification failed.\n"});
        let e = ApiError::read("GET /cluster/nextid".to_owned(), 400, "Parameter verification failed.", &body);
        assert_eq!(e.fault, Fault::Exists);
        let op = OpError::from(e);
        assert_eq!(op.causes, ["Parameter verification failed.", "vmid: VM 210 already exists"]);
        // What only the reason phrase says is kept, and decides when the message says nothing.
        let body = json!({"message": "proxy failed\n", "data": null});
        let e = ApiError::read("GET /x".to_owned(), 500, "VM is locked (backup)", &body);
        assert_eq!((e.fault, e.causes), (Fault::Locked("backup".to_owned()), vec!["VM is locked (backup)".to_owned()]));
        // 8.x leaves `message` out
        let body = json!({"errors": {"net0": "bad"}, "data": null});
        let e = ApiError::read("PUT /c".to_owned(), 400, "Parameter verification failed.", &body);
        assert_eq!(e.fault, Fault::Invalid);
        assert_eq!(e.to_string(), "Parameter verification failed.; net0: bad");
    }
}
