//! What a server's admission configuration says of Pod Security: the standard of namespaces whose labels name none,
//! and who is exempt. Grade: source (apiserver/pkg/admission, pod-security-admission).
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kube::text::{arr, s};

/// The configuration of the PodSecurity plugin, of the server that started last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standards {
    /// `defaults` of the configuration.
    defaults: Value,
    /// Namespaces that nothing is asked of.
    namespaces: Vec<String>,
    /// Runtime classes of pods that nothing is asked of.
    runtime_classes: Vec<String>,
    /// Users that nothing is asked of.
    usernames: Vec<String>,
}

impl Standards {
    /// Reads the text of an admission configuration.
    ///
    /// # Errors
    /// Why the API server does not start with it.
    pub fn read(text: &str) -> Result<Standards, String> {
        let file: Value = serde_saphyr::from_str(text).map_err(|e| unread(&format!("yaml: {e}")))?;
        known(&file, "AdmissionConfiguration", &["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"])
            .map_err(|e| unread(&e))?;
        let Some(plugin) = arr(&file, "/plugins").iter().find(|p| p["name"] == "PodSecurity") else {
            return Ok(Standards::default());
        };
        let told = &plugin["configuration"];
        if told.is_null() {
            return Ok(Standards::default());
        }
        let group = "pod-security.admission.config.k8s.io";
        let versions = ["v1", "v1beta1", "v1alpha1"].map(|v| format!("{group}/{v}"));
        known(told, "PodSecurityConfiguration", &versions.each_ref().map(String::as_str)).map_err(|e| unmade(&e))?;
        levels(&told["defaults"]).map_err(|e| unmade(&e))?;
        let list = |key: &str| {
            arr(&told["exemptions"], &format!("/{key}")).iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Ok(Standards {
            defaults: told["defaults"].clone(),
            namespaces: list("namespaces"),
            runtime_classes: list("runtimeClasses"),
            usernames: list("usernames"),
        })
    }

    /// Whether nothing is asked of this pod here, or of who makes it.
    #[must_use]
    pub fn exempt(&self, ns: &str, spec: &Value, user: Option<&str>) -> bool {
        let class = s(spec, "/runtimeClassName");
        self.namespaces.iter().any(|n| n == ns)
            || self.runtime_classes.iter().any(|c| c == class)
            || user.is_some_and(|u| self.usernames.iter().any(|n| n == u))
    }

    /// Level and version of a mode (`enforce`, `warn`) for a namespace whose labels name none.
    #[must_use]
    pub fn default_of(&self, mode: &str) -> Option<(&str, &str)> {
        let level = self.defaults[mode].as_str().filter(|l| !l.is_empty())?;
        Some((level, self.defaults[format!("{mode}-version")].as_str().unwrap_or("latest")))
    }
}

/// The file as a whole is wrong.
fn unread(why: &str) -> String {
    format!("failed to read plugin config: {why}")
}

/// The plugin does not take its part of the file.
fn unmade(why: &str) -> String {
    format!("failed to initialize admission: couldn't init admission plugin \"PodSecurity\": {why}")
}

fn known(object: &Value, kind: &str, versions: &[&str]) -> Result<(), String> {
    match (s(object, "/kind"), s(object, "/apiVersion")) {
        ("", _) => Err("Object 'Kind' is missing".to_owned()),
        (_, "") => Err("Object 'apiVersion' is missing".to_owned()),
        (k, v) if k == kind && versions.contains(&v) => Ok(()),
        (k, v) => Err(format!("no kind {k:?} is registered for version {v:?}")),
    }
}

fn levels(defaults: &Value) -> Result<(), String> {
    for mode in ["enforce", "warn", "audit"] {
        let level = s(defaults, &format!("/{mode}"));
        if !["", "privileged", "baseline", "restricted"].contains(&level) {
            let must = "must be one of privileged, baseline, restricted";
            return Err(format!("defaults.{mode}: Invalid value: {level:?}: {must}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(configuration: Value) -> String {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
            "plugins": [{"name": "PodSecurity", "configuration": configuration}]})
        .to_string()
    }

    #[test]
    fn a_configuration_is_read_or_refused() {
        let told = |defaults: Value| {
            json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
                "defaults": defaults, "exemptions": {"namespaces": ["a"], "runtimeClasses": ["r"], "usernames": ["u"]}})
        };
        let read = Standards::read(&file(told(json!({"enforce": "baseline", "enforce-version": "v1.30"})))).unwrap();
        assert_eq!((read.default_of("enforce"), read.default_of("warn")), (Some(("baseline", "v1.30")), None));
        let pod = json!({"runtimeClassName": "r"});
        assert!(read.exempt("a", &Value::Null, None) && read.exempt("b", &pod, None));
        assert!(read.exempt("b", &Value::Null, Some("u")) && !read.exempt("b", &Value::Null, Some("v")));
        for (text, why) in [
            (file(told(json!({"enforce": "strict"}))), "defaults.enforce: Invalid value: \"strict\": must be one of"),
            (file(json!({"kind": "Foo", "apiVersion": "v1"})), "no kind \"Foo\" is registered for version \"v1\""),
            ("kind: Foo\napiVersion: v1\n".to_owned(), "failed to read plugin config: no kind \"Foo\""),
            ("a: [".to_owned(), "failed to read plugin config: "),
        ] {
            let said = Standards::read(&text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
