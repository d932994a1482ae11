//! What the lab says where it does not simulate something, and how a run recognises it.

/// The words on standard error, behind the program's name.
pub const NOT_SIMULATED: &str = "not simulated by the lab";

/// A program that the lab does not simulate, in the words of the closing report.
#[must_use]
pub fn program(name: &str) -> String {
    format!("program `{name}` (lab/src/guest/programs/)")
}

/// A chart whose workload the lab does not simulate, in the words of the closing report and of the release's notes.
#[must_use]
pub fn chart(name: &str) -> String {
    format!("the workload of chart `{name}` (lab/src/kube/charts/)")
}

/// The programs that `stderr` says are not simulated.
pub fn programs(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.lines().filter_map(|l| {
        let (name, _) = l.split_once(": ").filter(|(_, rest)| rest.starts_with(NOT_SIMULATED))?;
        (!name.contains([' ', '/'])).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_out_of_what_was_said() {
        let said =
            format!("a line\nfoo: {NOT_SIMULATED} (lab/x)\nsh: 3: /opt/bar: {NOT_SIMULATED} (lab/x)\nbaz: not found");
        assert_eq!(programs(&said).collect::<Vec<_>>(), ["foo"]);
    }
}
