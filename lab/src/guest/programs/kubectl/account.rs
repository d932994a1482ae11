//! Who asks and what they may: `kubectl auth whoami`, `auth can-i`, `create token`, and `config` of the machine's own
//! kubeconfig. Grade: source.
use http::Method;
use serde_json::{Value, json};

use super::super::Call;
use super::items::kind;
use super::output::{object, speaks};
use super::request::{At, Change, Form, refused};
use super::table::columns;
use super::words::Words;

async fn post(c: &mut Call, at: &At, path: &str, body: &Value) -> Result<Value, Value> {
    Change { method: Method::POST, path, query: "", form: Form::Plain, body }.send(c, at).await
}

/// `auth whoami` and `auth can-i VERB KIND`; `None` when the words ask for more than it does.
pub(super) async fn auth(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let (what, words) = words.split_first()?;
    match what.as_str() {
        "whoami" => whoami(c, at, words).await,
        "can-i" => may(c, at, words).await,
        _ => None,
    }
}

async fn whoami(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "output/o=").filter(|w| w.bare.is_empty() && speaks(w))?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = match post(c, at, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await {
        Ok(v) => v,
        Err(v) => return Some(refused(c, &v)),
    };
    if let Some(form) = w.value("output") {
        let text = object(form, &answer)?;
        c.line(&text);
        return Some(0);
    }
    let user = &answer["status"]["userInfo"];
    let groups: Vec<&str> = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let list = |of: &[&str]| format!("[{}]", of.join(" "));
    let mut rows = vec![
        vec!["ATTRIBUTE".to_owned(), "VALUE".to_owned()],
        vec!["Username".to_owned(), user["username"].as_str().unwrap_or_default().to_owned()],
        vec!["Groups".to_owned(), list(&groups)],
    ];
    for (k, v) in user["extra"].as_object().into_iter().flatten() {
        let values: Vec<&str> = v.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        rows.push(vec![format!("Extra: {k}"), list(&values)]);
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    Some(0)
}

async fn may(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "all-namespaces/A subresource= quiet/q no-headers list as= as-group=")?;
    if w.on("list") && w.value("as").is_some() {
        return None;
    }
    if w.on("list") {
        return Some(rules(c, at, &w).await);
    }
    let [verb, what, name @ ..] = &w.bare[..] else {
        let text = "error: you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' for help and examples.";
        return Some(c.fail(1, text));
    };
    let namespace = if w.on("all-namespaces") { String::new() } else { w.namespace() };
    let attributes = if what.starts_with('/') {
        json!({"nonResourceAttributes": {"path": what, "verb": verb}})
    } else {
        let (word, inner) = what.split_once('/').map_or((what.as_str(), ""), |(k, n)| (k, n));
        let known = kind(c, &at.0, word);
        if known.is_none() && word != "*" {
            c.complain(&format!("Warning: the server doesn't have a resource type '{word}'\n"));
        }
        let (group, plural) = known.as_ref().map_or(("", word), |k| (k.group.as_str(), k.plural.as_str()));
        if known.as_ref().is_some_and(|k| !k.namespaced) {
            let group = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
            c.complain(&format!("Warning: resource '{plural}' is not namespace scoped{group}\n"));
        }
        let group = if word == "*" { "*" } else { group };
        json!({"resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": plural,
            "subresource": w.value("subresource").unwrap_or_default(),
            "name": name.first().map_or(inner, String::as_str)}})
    };
    // Whoever is an administrator may ask for somebody else what they would hear themselves.
    let (kind, plural, mut spec) = match w.value("as") {
        None => ("SelfSubjectAccessReview", "selfsubjectaccessreviews", attributes),
        Some(user) => {
            let mut spec = attributes;
            spec["user"] = json!(user);
            ("SubjectAccessReview", "subjectaccessreviews", spec)
        }
    };
    if spec["user"].is_string() {
        let mut groups: Vec<String> = w.all("as-group").map(str::to_owned).collect();
        let account = w.value("as").and_then(|u| u.strip_prefix("system:serviceaccount:")?.split_once(':'));
        if let Some((ns, _)) = account.filter(|_| groups.is_empty()) {
            groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{ns}")]);
        }
        groups.push("system:authenticated".to_owned());
        spec["groups"] = json!(groups);
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let answer = match post(c, at, &format!("/apis/authorization.k8s.io/v1/{plural}"), &review).await {
        Ok(v) => v,
        Err(v) => return Some(refused(c, &v)),
    };
    let allowed = answer["status"]["allowed"] == true;
    if !w.on("quiet") {
        c.line(if allowed { "yes" } else { "no" });
    }
    Some(i32::from(!allowed))
}

/// `auth can-i --list`.
async fn rules(c: &mut Call, at: &At, w: &Words) -> i32 {
    if !w.bare.is_empty() {
        return c.fail(1, "error: list option must be specified with no arguments");
    }
    let kind = "SelfSubjectRulesReview";
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": {"namespace": w.namespace()}});
    let answer = match post(c, at, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await {
        Ok(v) => v,
        Err(v) => return refused(c, &v),
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !w.on("no-headers") {
        rows.push(["Resources", "Non-Resource URLs", "Resource Names", "Verbs"].map(str::to_owned).to_vec());
    }
    for row in rule_rows(&answer["status"]) {
        rows.push(row.to_vec());
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    0
}

/// What an account may do to one thing.
#[derive(Default, PartialEq)]
struct Right {
    group: String,
    resource: String,
    name: Vec<String>,
    url: Vec<String>,
    verbs: Vec<String>,
}

impl Right {
    /// By which kubectl sorts them: the rule as Go prints it.
    fn key(&self) -> [String; 5] {
        let one = |t: &str| format!("[{t}]");
        [listed(&self.verbs), one(&self.group), one(&self.resource), listed(&self.name), listed(&self.url)]
    }

    fn row(&self) -> [String; 4] {
        let (kind, below) = self.resource.split_once('/').map_or((self.resource.as_str(), None), |(k, b)| (k, Some(b)));
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let below = below.map_or_else(String::new, |b| format!("/{b}"));
        [format!("{kind}{group}{below}"), listed(&self.url), listed(&self.name), listed(&self.verbs)]
    }
}

fn listed(v: &[String]) -> String {
    format!("[{}]", v.join(" "))
}

/// A row for each resource and name with all its verbs, and for each address and verb.
fn rule_rows(status: &Value) -> Vec<[String; 4]> {
    let texts = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all: Vec<Right> = Vec::new();
    for rule in status["resourceRules"].as_array().into_iter().flatten() {
        let verbs = texts(&rule["verbs"]);
        let names = match texts(&rule["resourceNames"]) {
            none if none.is_empty() => vec![Vec::new()],
            some => some.into_iter().map(|n| vec![n]).collect(),
        };
        for (group, resource) in texts(&rule["apiGroups"])
            .iter()
            .flat_map(|g| texts(&rule["resources"]).into_iter().map(|r| (g.clone(), r)).collect::<Vec<_>>())
        {
            for name in &names {
                let same = |r: &&mut Right| r.group == group && r.resource == resource && r.name == *name;
                match all.iter_mut().find(same) {
                    Some(have) => {
                        let more: Vec<_> = verbs.iter().filter(|v| !have.verbs.contains(v)).cloned().collect();
                        have.verbs.extend(more);
                    }
                    None => all.push(Right {
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        verbs: verbs.clone(),
                        url: Vec::new(),
                    }),
                }
            }
        }
    }
    for rule in status["nonResourceRules"].as_array().into_iter().flatten() {
        for url in texts(&rule["nonResourceURLs"]) {
            let one = |v: String| Right { url: vec![url.clone()], verbs: vec![v], ..Right::default() };
            all.extend(texts(&rule["verbs"]).into_iter().map(one));
        }
    }
    all.sort_by_key(Right::key);
    all.iter().map(Right::row).collect()
}

/// `create token ACCOUNT`.
pub(super) async fn token(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "duration= audience= output/o=").filter(speaks)?;
    let [name] = &w.bare[..] else {
        let text = format!(
            "error: exactly one NAME is required, got {}\nSee 'kubectl create token -h' for help and examples",
            w.bare.len()
        );
        return Some(c.fail(1, &text));
    };
    let mut spec = json!({"audiences": w.all("audience").collect::<Vec<_>>()});
    if w.value("duration").is_some() {
        spec["expirationSeconds"] = json!(w.wait_ms("duration", 0)? / 1000);
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", w.namespace());
    let answer = match post(c, at, &path, &request).await {
        Ok(v) => v,
        Err(v) => {
            let text = format!("error: failed to create token: {}", v["message"].as_str().unwrap_or_default());
            return Some(c.fail(1, &text));
        }
    };
    let text = match w.value("output") {
        Some(form) => object(form, &answer)?,
        None => answer["status"]["token"].as_str().unwrap_or_default().to_owned(),
    };
    c.line(&text);
    Some(0)
}

/// `config view`, `current-context` and the lists of the machine's kubeconfig; `None` for what would change it.
pub(super) fn config(c: &mut Call, words: &[String]) -> Option<i32> {
    let (what, words) = words.split_first()?;
    let w = Words::read(words, "raw minify output/o= no-headers")?;
    let file = match super::request::kubeconfig(c) {
        Ok(file) => file,
        Err(code) => return Some(code),
    };
    let named = |list: &str| -> Vec<String> {
        let all = file[list].as_array().into_iter().flatten();
        all.filter_map(|e| e["name"].as_str().map(str::to_owned)).collect()
    };
    let current = file["current-context"].as_str().unwrap_or_default();
    match what.as_str() {
        "current-context" => c.line(current),
        "get-clusters" | "get-users" => {
            c.line("NAME");
            for name in named(what.trim_start_matches("get-")) {
                c.line(&name);
            }
        }
        "get-contexts" if w.value("output") == Some("name") => named("contexts").iter().for_each(|n| c.line(n)),
        "get-contexts" => {
            let mut rows: Vec<Vec<String>> = Vec::new();
            if !w.on("no-headers") {
                rows.push(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned).to_vec());
            }
            for e in file["contexts"].as_array().into_iter().flatten() {
                let part = |f: &str| e["context"][f].as_str().unwrap_or_default().to_owned();
                let name = e["name"].as_str().unwrap_or_default().to_owned();
                let mark = if name == current { "*" } else { "" };
                rows.push(vec![mark.to_owned(), name, part("cluster"), part("user"), part("namespace")]);
            }
            for l in columns(&rows) {
                c.line(&l);
            }
        }
        "view" => {
            let mut shown = file.clone();
            if !w.on("raw") {
                hidden(&mut shown);
            }
            let text = object(w.value("output").unwrap_or("yaml"), &shown)?;
            c.line(&text);
        }
        _ => return None,
    }
    Some(0)
}

/// Puts words in the place of certificates, keys and tokens.
fn hidden(v: &mut Value) {
    match v {
        Value::Object(m) => m.iter_mut().for_each(|(k, v)| match k.as_str() {
            k if k.ends_with("-data") => *v = "DATA+OMITTED".into(),
            "token" | "password" => *v = "REDACTED".into(),
            _ => hidden(v),
        }),
        Value::Array(a) => a.iter_mut().for_each(hidden),
        _ => {}
    }
}
