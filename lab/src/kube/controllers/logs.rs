//! What containers write: lines with the time they were written, kept over one restart.
use super::super::cx::Cx;
use super::super::state::Log;

/// Adds to a container's log.
pub fn append(cx: &mut Cx, uid: &str, container: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    let ended = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    write(cx, uid, container, &ended);
}

/// Adds text as a container wrote it; a line may come in parts.
pub fn write(cx: &mut Cx, uid: &str, container: &str, text: &str) {
    let now = cx.now();
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.log.entry(container.to_owned()).or_default().add(now, text);
        cx.lab.kube().wrote();
    }
}

/// What a container that waits keeps saying: said once.
pub(super) fn repeat(cx: &mut Cx, uid: &str, container: &str, text: &str) {
    let known = cx.c.pods.get(uid).and_then(|rt| rt.log.get(container)).is_some_and(|l| l.ends_with(text));
    if !known {
        append(cx, uid, container, text);
    }
}

/// The container starts anew: what it wrote so far is that of its previous run.
pub(super) fn rotate(cx: &mut Cx, uid: &str, container: &str) {
    if let Some(log) = cx.c.pods.get_mut(uid).and_then(|rt| rt.log.get_mut(container)).filter(|l| !l.lines.is_empty()) {
        *log = Log { previous: std::mem::take(&mut log.lines), ..Log::default() };
    }
}
