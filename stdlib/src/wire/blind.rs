//! What the lab says where it does not simulate something, and how a run recognises it.

/// The words on standard error, behind the program's name.
pub const NOT_SIMULATED: &str = "not simulated by the lab";

/// The behaviour whose row of the grades says which programs there are.
pub const PROGRAMS: &str = "programs of a machine";
/// The behaviour whose row of the grades says what charts bring.
pub const CHARTS: &str = "objects of the catalogue's charts";

/// Something that is not among what a behaviour covers, in the words of the closing report.
#[must_use]
pub fn missing(what: &str, behaviour: &str) -> String {
    format!("{what} (not among `{behaviour}`: see `gpuhost lab grades`)")
}

/// A program that the lab does not simulate, in the words of the closing report.
#[must_use]
pub fn program(name: &str) -> String {
    missing(&format!("program `{name}`"), PROGRAMS)
}

/// A chart whose workload the lab does not simulate, in the words of the closing report and of the release's notes.
#[must_use]
pub fn chart(name: &str) -> String {
    missing(&format!("the workload of chart `{name}`"), CHARTS)
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
