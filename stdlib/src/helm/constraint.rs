//! Version constraints of charts (`>= 1.32.0-0 < 1.35.0-0`). No I/O.

type Numbers = (u64, u64, u64);

/// Numbers of a version; missing ones are 0.
fn numbers(text: &str) -> Option<Numbers> {
    let core = text.trim().trim_start_matches('v').split(['+', '-']).next()?;
    let mut n = core.split('.').map(|p| if matches!(p, "x" | "X" | "*") { Some(0) } else { p.parse().ok() });
    Some((n.next()??, n.next().unwrap_or(Some(0))?, n.next().unwrap_or(Some(0))?))
}

/// How many numbers a constraint names.
fn precision(text: &str) -> usize {
    let core = text.trim().trim_start_matches('v').split(['+', '-']).next().unwrap_or_default();
    core.split('.').filter(|p| p.parse::<u64>().is_ok()).count()
}

fn one(op: &str, text: &str, v: Numbers) -> Option<bool> {
    let n = numbers(text)?;
    let minor_up = (n.0, n.1 + 1, 0);
    Some(match op {
        ">=" | "=>" => v >= n,
        "<=" | "=<" => v <= n,
        ">" => v > n,
        "<" => v < n,
        "!=" => v != n,
        "^" if n.0 > 0 => v >= n && v.0 == n.0,
        "^" => v >= n && v < minor_up,
        "~" if precision(text) < 2 => v >= n && v.0 == n.0,
        "~" => v >= n && v < minor_up,
        _ => match precision(text) {
            0 => true,
            1 => v.0 == n.0,
            2 => (v.0, v.1) == (n.0, n.1),
            _ => v == n,
        },
    })
}

fn all(text: &str, v: Numbers) -> Option<bool> {
    let mut rest = text.trim();
    // `a - b` is a range
    if let Some((a, b)) = rest.split_once(" - ") {
        return Some(one(">=", a, v)? && one("<=", b, v)?);
    }
    let mut ok = true;
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', ',']);
        let op_end = rest.find(|c: char| !"<>=!~^".contains(c)).unwrap_or(rest.len());
        let (op, tail) = rest.split_at(op_end);
        let tail = tail.trim_start();
        let end = tail.find([' ', ',', '<', '>', '=', '!', '~', '^']).unwrap_or(tail.len());
        if end == 0 {
            return if op.is_empty() { Some(ok) } else { None };
        }
        ok &= one(op, &tail[..end], v)?;
        rest = &tail[end..];
    }
    Some(ok)
}

/// Whether `version` satisfies `constraint`; `None` when the constraint cannot be read. Build and pre-release parts of
/// a Kubernetes version (`+k3s1`) play no part.
#[must_use]
pub fn satisfies(constraint: &str, version: &str) -> Option<bool> {
    let v = numbers(version)?;
    let mut any = false;
    for part in constraint.split("||") {
        any |= all(part, v)?;
    }
    Some(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_read_as_helm_reads_them() {
        let fits = |c: &str, v: &str| satisfies(c, v).unwrap();
        assert!(fits(">= 1.32.0-0 < 1.35.0-0", "v1.34.9+k3s1"));
        assert!(!fits(">= 1.32.0-0 < 1.35.0-0", "v1.36.3+k3s1"));
        assert!(fits(">=1.28.0-0", "v1.34.9+k3s1") && fits("< 1.36.0-0", "v1.35.7+k3s1"));
        assert!(fits("^1.30", "v1.34.9") && fits("~1.34", "v1.34.9") && !fits("~1.33", "v1.34.9"));
        assert!(fits("1.34.x", "v1.34.9") && !fits("1.33.x || 1.35.x", "v1.34.9") && fits("1.33 - 1.35", "v1.34.9"));
        assert!(fits("> 1.20, != 1.34.8", "v1.34.9"));
        assert_eq!(satisfies("whatever", "v1.34.9"), None);
    }
}
