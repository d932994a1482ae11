//! Commands that kubectl does not have, and what was perhaps meant. Grade: source (command.go of cobra).

/// The commands in the order in which the real one adds them.
const COMMANDS: &str = "create expose run set explain get edit delete rollout scale autoscale certificate cluster-info top \
    cordon uncordon drain taint describe logs attach exec port-forward proxy cp auth debug events diff apply patch \
    replace wait kustomize label annotate completion kuberc alpha config plugin version api-versions api-resources \
    options";

/// Commands that are not offered, and words that begin no command's name but stand for one.
const HIDDEN: [&str; 4] = ["log", "help", "__complete", "__completeNoDesc"];

/// Whether kubectl has no command of this name.
pub(super) fn is(verb: &str) -> bool {
    !verb.starts_with('-') && !HIDDEN.contains(&verb) && !COMMANDS.split_whitespace().any(|c| c == verb)
}

/// How many letters have to be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// What the real one says.
pub(super) fn told(verb: &str) -> String {
    let typed = verb.to_lowercase();
    let stands_for = |c: &str| matches!((typed.as_str(), c), ("list", "get") | ("rm", "delete"));
    let near = |c: &&str| distance(&typed, c) <= 2 || c.starts_with(&typed) || stands_for(c);
    let meant: Vec<String> = COMMANDS.split_whitespace().filter(near).map(|c| format!("\t{c}")).collect();
    let head = format!("error: unknown command \"{verb}\" for \"kubectl\"");
    if meant.is_empty() { head } else { format!("{head}\n\nDid you mean this?\n{}", meant.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_offered() {
        assert_eq!(told("gte"), "error: unknown command \"gte\" for \"kubectl\"\n\nDid you mean this?\n\tget");
        assert!(told("gets").ends_with("\tset\n\tget"));
        assert_eq!(told("xyzzy"), "error: unknown command \"xyzzy\" for \"kubectl\"");
        assert_eq!((distance("kitten", "sitting"), distance("", "ab")), (3, 2));
    }
}
