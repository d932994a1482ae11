//! The differences of two texts, as `diff -u` shows them, found as Python's difflib finds them: the longest common part
//! first, then what is before and behind it.
use std::collections::HashMap;
use std::fmt::Write as _;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// A common part: where it begins in both texts, and how long it is.
type Match = (usize, usize, usize);

struct Matcher<'a> {
    a: &'a [String],
    b: &'a [String],
    /// Where each line of the second text is; lines that are all over a long text say nothing.
    places: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Matcher<'a> {
    fn new(a: &'a [String], b: &'a [String]) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, line) in b.iter().enumerate() {
            places.entry(line).or_default().push(i);
        }
        if b.len() >= 200 {
            places.retain(|_, all| all.len() <= b.len() / 100 + 1);
        }
        Matcher { a, b, places }
    }

    fn longest(&self, (from_a, to_a): (usize, usize), (from_b, to_b): (usize, usize)) -> Match {
        let (mut best, mut lengths) = ((from_a, from_b, 0), HashMap::<usize, usize>::new());
        for i in from_a..to_a {
            let mut now = HashMap::new();
            for &j in self.places.get(self.a[i].as_str()).map_or(&[][..], Vec::as_slice) {
                if j < from_b || j >= to_b {
                    continue;
                }
                let n = j.checked_sub(1).and_then(|p| lengths.get(&p)).copied().unwrap_or(0) + 1;
                now.insert(j, n);
                if n > best.2 {
                    best = (i + 1 - n, j + 1 - n, n);
                }
            }
            lengths = now;
        }
        // lines that are all over the text go along with their neighbours
        let (mut i, mut j, mut n) = best;
        while i > from_a && j > from_b && self.a[i - 1] == self.b[j - 1] {
            (i, j, n) = (i - 1, j - 1, n + 1);
        }
        while i + n < to_a && j + n < to_b && self.a[i + n] == self.b[j + n] {
            n += 1;
        }
        (i, j, n)
    }

    fn matches(&self) -> Vec<Match> {
        let (mut queue, mut out) = (vec![((0, self.a.len()), (0, self.b.len()))], Vec::new());
        while let Some((a, b)) = queue.pop() {
            let (i, j, n) = self.longest(a, b);
            if n > 0 {
                out.push((i, j, n));
                queue.push(((a.0, i), (b.0, j)));
                queue.push(((i + n, a.1), (j + n, b.1)));
            }
        }
        out.sort_unstable();
        let mut joined: Vec<Match> = Vec::new();
        for m in out {
            match joined.last_mut() {
                Some(l) if l.0 + l.2 == m.0 && l.1 + l.2 == m.1 => l.2 += m.2,
                _ => joined.push(m),
            }
        }
        joined.push((self.a.len(), self.b.len(), 0));
        joined
    }
}

/// A part of both texts, the same or not: from, to in the first; from, to in the second.
#[derive(Clone, Copy)]
struct Part {
    same: bool,
    a: (usize, usize),
    b: (usize, usize),
}

fn parts(m: &Matcher<'_>) -> Vec<Part> {
    let (mut out, mut i, mut j) = (Vec::new(), 0, 0);
    for (ai, bj, n) in m.matches() {
        if i < ai || j < bj {
            out.push(Part { same: false, a: (i, ai), b: (j, bj) });
        }
        if n > 0 {
            out.push(Part { same: true, a: (ai, ai + n), b: (bj, bj + n) });
        }
        (i, j) = (ai + n, bj + n);
    }
    out
}

/// Differences that stand near each other, with what is around them.
fn groups(mut all: Vec<Part>) -> Vec<Vec<Part>> {
    if let Some(p) = all.first_mut().filter(|p| p.same) {
        (p.a.0, p.b.0) = (p.a.0.max(p.a.1.saturating_sub(CONTEXT)), p.b.0.max(p.b.1.saturating_sub(CONTEXT)));
    }
    if let Some(p) = all.last_mut().filter(|p| p.same) {
        (p.a.1, p.b.1) = (p.a.1.min(p.a.0 + CONTEXT), p.b.1.min(p.b.0 + CONTEXT));
    }
    let (mut out, mut group) = (Vec::new(), Vec::new());
    for mut p in all {
        if p.same && p.a.1 - p.a.0 > 2 * CONTEXT {
            group.push(Part { a: (p.a.0, p.a.0 + CONTEXT), b: (p.b.0, p.b.0 + CONTEXT), ..p });
            out.push(std::mem::take(&mut group));
            (p.a.0, p.b.0) = (p.a.1 - CONTEXT, p.b.1 - CONTEXT);
        }
        group.push(p);
    }
    out.push(group);
    out.retain(|g| g.iter().any(|p| !p.same));
    out
}

fn range(from: usize, to: usize) -> String {
    match to - from {
        1 => format!("{}", from + 1),
        0 => format!("{from},0"),
        n => format!("{},{n}", from + 1),
    }
}

/// How the second text differs from the first; empty for equal ones.
#[must_use]
pub fn difference(a: &[String], b: &[String]) -> String {
    let mut out = String::new();
    for group in groups(parts(&Matcher::new(a, b))) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let _ = writeln!(out, "@@ -{} +{} @@", range(first.a.0, last.a.1), range(first.b.0, last.b.1));
        for p in group {
            let mut put = |sign: char, lines: &[String]| {
                lines.iter().for_each(|l| out.push_str(&format!("{sign}{l}\n")));
            };
            if p.same {
                put(' ', &a[p.a.0..p.a.1]);
            } else {
                put('-', &a[p.a.0..p.a.1]);
                put('+', &b[p.b.0..p.b.1]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_far_apart_are_told_apart() {
        let text = |t: &str| -> Vec<String> { t.split(' ').map(str::to_owned).collect() };
        let (a, b) = (text("a b c d e f g h i j k l"), text("a x c d e f g h i j k"));
        let want = "@@ -1,5 +1,5 @@\n a\n-b\n+x\n c\n d\n e\n@@ -9,4 +9,3 @@\n i\n j\n k\n-l\n";
        assert_eq!(difference(&a, &b), want);
        assert_eq!(difference(&a, &a), "");
    }
}
