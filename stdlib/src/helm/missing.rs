//! A chart that does not exist: Helm says so within a second, and no further attempt will find it.
use super::install::ReleaseOptions;
use crate::core::error::OpError;

/// How often a name has to be unknown to DNS: a cluster that has just begun may not resolve yet.
const UNRESOLVED: i64 = 2;

/// The error that Helm's words stand for when the chart, its version or its repository is not there.
#[must_use]
pub fn chart(name: &str, o: &ReleaseOptions, words: &[String], attempts: i64) -> Option<OpError> {
    let line = words.iter().rev().find(|l| l.contains("Error"))?;
    let has = |part: &str| line.contains(part);
    let from = if o.repo.is_empty() { String::new() } else { format!(" in {}", o.repo) };
    let at = if o.repo.is_empty() { &o.chart } else { &o.repo };
    let e = if has("matching") && has("not found") {
        let what = format!("there is no chart `{}` {}{from}", o.chart, o.version);
        let list = format!("`helm::versions(\"{}\", \"{}\")` lists what there is", o.repo, o.chart);
        OpError::not_found(what).hint(if o.repo.is_empty() { "correct `version`".to_owned() } else { list })
    } else if has("404") || has("is not a valid chart repository") && !has("no such host") && !has("dial tcp") {
        let hint = format!("correct `repo` of {name}: `helm repo add` takes an address that has an index.yaml");
        OpError::not_found(format!("there is no chart repository at {at}")).hint(hint)
    } else if has("no such host") && attempts >= UNRESOLVED {
        OpError::not_found(format!("nobody has the address of {at}"))
            .hint("correct `repo`; when it is right, the cluster's DNS does not know it: `kubectl -n kube-system logs deploy/coredns`")
    } else {
        return None;
    };
    Some(e.on(name).because(line.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_attempt_will_find_is_told_from_what_may_pass() {
        let map = rhai::Map::from([
            ("chart".into(), "podinfo".into()),
            ("repo".into(), "https://stefanprodan.github.io/podinfo".into()),
            ("version".into(), "9.9.9".into()),
        ]);
        let o = ReleaseOptions::read(&map).unwrap();
        let say = |line: &str, attempts| chart("podinfo", &o, &[line.to_owned()], attempts).map(|e| e.message);
        let old = "Error: INSTALLATION FAILED: chart \"podinfo\" matching 9.9.9 not found in podinfo index. (try 'helm repo update'): no chart version found for podinfo-9.9.9";
        assert_eq!(say(old, 0).unwrap(), "there is no chart `podinfo` 9.9.9 in https://stefanprodan.github.io/podinfo");
        let gone = "Error: looks like \"https://stefanprodan.github.io/podinfo\" is not a valid chart repository or cannot be reached: failed to fetch https://stefanprodan.github.io/podinfo/index.yaml : 404 Not Found";
        assert!(say(gone, 0).unwrap().starts_with("there is no chart repository at https://stefan"));
        let dns = "Error: looks like \"https://x\" is not a valid chart repository or cannot be reached: Get \"https://x/index.yaml\": dial tcp: lookup x: no such host";
        assert_eq!(say(dns, 0), None, "it may come");
        assert!(say(dns, 2).unwrap().starts_with("nobody has the address of"));
        let refused = "Error: looks like \"https://x\" is not a valid chart repository or cannot be reached: Get \"https://x/index.yaml\": dial tcp 1.2.3.4:443: connect: connection refused";
        assert_eq!(say(refused, 5), None);
        assert_eq!(say("Error: INSTALLATION FAILED: timed out waiting for the condition", 5), None);
    }
}
