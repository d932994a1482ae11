//! The difference of two texts, line by line, as `diff -u` shows it.

/// Lines around a difference.
const AROUND: usize = 3;
/// More lines than this are not compared one by one.
const MOST: usize = 2_000;

#[derive(Clone, Copy, PartialEq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Hunks with three lines around each difference; empty for equal texts.
pub(crate) fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if a.len() > MOST || b.len() > MOST {
        return format!("{} lines become {} lines", a.len(), b.len());
    }
    let all = lines(&a, &b);
    let differs: Vec<usize> = (0..all.len()).filter(|i| !matches!(all[*i], Line::Same(_))).collect();
    let mut out = String::new();
    let mut i = 0;
    while i < differs.len() {
        let mut last = i;
        while last + 1 < differs.len() && differs[last + 1] - differs[last] <= 2 * AROUND {
            last += 1;
        }
        let from = differs[i].saturating_sub(AROUND);
        let to = (differs[last] + AROUND + 1).min(all.len());
        hunk(&all, from, to, &mut out);
        i = last + 1;
    }
    if out.is_empty() && old != new {
        out.push_str("the last line break differs\n");
    }
    out
}

fn hunk(all: &[Line<'_>], from: usize, to: usize, out: &mut String) {
    let count = |list: &[Line<'_>], new: bool| {
        list.iter().filter(|l| !matches!((l, new), (Line::Gone(_), true) | (Line::New(_), false))).count()
    };
    let (part, before) = (&all[from..to], &all[..from]);
    let (old, new) = (count(part, false), count(part, true));
    let start = |n: usize, length: usize| if length == 0 { n } else { n + 1 };
    out.push_str(&format!(
        "@@ -{},{old} +{},{new} @@\n",
        start(count(before, false), old),
        start(count(before, true), new)
    ));
    for l in part {
        let (sign, text) = match l {
            Line::Same(t) => (' ', t),
            Line::Gone(t) => ('-', t),
            Line::New(t) => ('+', t),
        };
        out.push(sign);
        out.push_str(text);
        out.push('\n');
    }
}

/// The longest common subsequence between the common beginning and end.
fn lines<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<Line<'a>> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (ma, mb) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let width = mb.len() + 1;
    let mut length = vec![0u16; (ma.len() + 1) * width];
    for i in (0..ma.len()).rev() {
        for j in (0..mb.len()).rev() {
            length[i * width + j] = if ma[i] == mb[j] {
                length[(i + 1) * width + j + 1] + 1
            } else {
                length[(i + 1) * width + j].max(length[i * width + j + 1])
            };
        }
    }
    let mut out: Vec<Line<'a>> = a[..head].iter().map(|l| Line::Same(l)).collect();
    let (mut i, mut j) = (0, 0);
    while i < ma.len() || j < mb.len() {
        if i < ma.len() && j < mb.len() && ma[i] == mb[j] {
            out.push(Line::Same(ma[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == mb.len() || (i < ma.len() && length[(i + 1) * width + j] >= length[i * width + j + 1]) {
            out.push(Line::Gone(ma[i]));
            i += 1;
        } else {
            out.push(Line::New(mb[j]));
            j += 1;
        }
    }
    out.extend(a[a.len() - tail..].iter().map(|l| Line::Same(l)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_have_lines_around() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        assert_eq!(unified(old, &old.replace('5', "five")), "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
        assert_eq!(unified("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(unified("a\n", ""), "@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(unified("a\n", "a\n"), "");
        assert_eq!(unified("a\n", "a"), "the last line break differs\n");
        let far = |first: &str, last: &str| {
            let middle: Vec<String> = (0..20).map(|n| n.to_string()).collect();
            format!("{first}\n{}\n{last}\n", middle.join("\n"))
        };
        assert_eq!(unified(&far("a", "z"), &far("b", "y")).matches("@@ -").count(), 2);
    }

    #[test]
    fn what_the_hunks_say_leads_from_one_to_the_other() {
        let old = "a\nb\nc\nd\n";
        let new = "b\nx\nd\ne\n";
        let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
        let all = lines(&a, &b);
        let keep = |new: bool| {
            all.iter()
                .filter_map(|l| match l {
                    Line::Same(t) => Some(*t),
                    Line::Gone(t) => (!new).then_some(*t),
                    Line::New(t) => new.then_some(*t),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!((keep(false), keep(true)), (a.clone(), b.clone()));
        assert_eq!(all.iter().filter(|l| matches!(l, Line::Same(_))).count(), 2);
    }
}
