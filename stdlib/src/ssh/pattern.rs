//! Host patterns of OpenSSH: `*`, `?`, lists with negation.

/// Whether `name` matches one pattern with `*` and `?`.
pub(super) fn wildcard(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut pi, mut ni, mut star, mut mark) = (0, 0, None, 0);
    while ni < n.len() {
        if pi < p.len() && p[pi] == '*' {
            star = Some(pi);
            mark = ni;
            pi += 1;
        } else if pi < p.len() && (p[pi] == '?' || p[pi] == n[ni]) {
            pi += 1;
            ni += 1;
        } else if let Some(s) = star {
            pi = s + 1;
            mark += 1;
            ni = mark;
        } else {
            return false;
        }
    }
    p[pi..].iter().all(|c| *c == '*')
}

/// Whether one of `names` matches a list of patterns; a negated pattern that matches wins.
pub(super) fn list<'a>(patterns: impl IntoIterator<Item = &'a str>, names: &[&str]) -> bool {
    let mut hit = false;
    for p in patterns {
        let (p, negated) = p.strip_prefix('!').map_or((p, false), |p| (p, true));
        let p = p.to_ascii_lowercase();
        if names.iter().any(|n| wildcard(&p, &n.to_ascii_lowercase())) {
            if negated {
                return false;
            }
            hit = true;
        }
    }
    hit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_marks_and_negation() {
        assert!(wildcard("10.0.?.*", "10.0.7.99") && !wildcard("10.0.?.*", "10.0.77.99"));
        assert!(wildcard("*", "") && wildcard("a*b*c", "aXbYbc") && !wildcard("a*b", "abc"));
        assert!(list(["*.lab", "!bad.lab"], &["X.LAB"]) && !list(["*.lab", "!bad.lab"], &["bad.lab"]));
        assert!(!list(["!bad.lab"], &["good.lab"]), "a negation alone matches nothing");
    }
}
