//! Two texts as `diff -u` compares them. No I/O.
use std::ops::Range;

/// Lines around a change.
const CONTEXT: usize = 3;

/// A stretch of lines: the same in both texts, or what takes the place of what.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    same: bool,
    old: Range<usize>,
    new: Range<usize>,
}

/// The pieces of two lists of lines, by their longest common subsequence.
fn pieces(a: &[&str], b: &[&str]) -> Vec<Piece> {
    let mut common = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::<Piece>::new());
    while i < a.len() || j < b.len() {
        let same = i < a.len() && j < b.len() && a[i] == b[j];
        let (from, at) = (i, j);
        if same {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && common[i + 1][j] >= common[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
        match out.last_mut().filter(|p| p.same == same) {
            Some(last) => (last.old.end, last.new.end) = (i, j),
            None => out.push(Piece { same, old: from..i, new: at..j }),
        }
    }
    out
}

/// `12,3`, as a hunk's head has it.
fn place(r: &Range<usize>) -> String {
    match r.len() {
        0 => format!("{},0", r.start),
        1 => (r.start + 1).to_string(),
        n => format!("{},{n}", r.start + 1),
    }
}

/// The hunks; empty for equal texts.
pub(super) fn hunks(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let all = pieces(&a, &b);
    let mut out = String::new();
    // Changes with few lines between them are one hunk.
    let near = |p: &Piece| p.same && p.old.len() <= 2 * CONTEXT;
    let mut at = 0;
    while let Some(first) = all[at..].iter().position(|p| !p.same).map(|i| i + at) {
        let mut last = first;
        while all.get(last + 1).is_some_and(near) && last + 2 < all.len() {
            last += 2;
        }
        let before = first.checked_sub(1).map_or(0, |i| all[i].old.len().min(CONTEXT));
        let after = all.get(last + 1).map_or(0, |p| p.old.len().min(CONTEXT));
        let from = all[first].old.start - before..all[last].old.end + after;
        let to = all[first].new.start - before..all[last].new.end + after;
        out += &format!("@@ -{} +{} @@\n", place(&from), place(&to));
        let mut put = |mark: char, lines: &[&str]| lines.iter().for_each(|l| out += &format!("{mark}{l}\n"));
        put(' ', &a[from.start..all[first].old.start]);
        for p in &all[first..=last] {
            if p.same {
                put(' ', &a[p.old.clone()]);
            } else {
                put('-', &a[p.old.clone()]);
                put('+', &b[p.new.clone()]);
            }
        }
        put(' ', &a[all[last].old.end..from.end]);
        at = last + 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_are_those_of_diff() {
        assert_eq!(hunks("a\nb\n", "a\nb\n"), "");
        assert_eq!(hunks("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(hunks("1\n2\n3\n4\n5\n", "1\n2\n3\nx\n5\n"), "@@ -1,5 +1,5 @@\n 1\n 2\n 3\n-4\n+x\n 5\n");
        let far: String = (10..30).map(|n| format!("{n}\n")).collect();
        let two = far.replace("12\n", "12\nx\n").replace("28\n", "");
        let want = "@@ -1,6 +1,7 @@\n 10\n 11\n 12\n+x\n 13\n 14\n 15\n@@ -16,5 +17,4 @@\n 25\n 26\n 27\n-28\n 29\n";
        assert_eq!(hunks(&far, &two), want);
    }
}
