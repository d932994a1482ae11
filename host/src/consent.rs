//! Who may say yes: the user at a terminal, `--yes` for harmless questions, `--yes=SITE` for removals.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gpuhost_stdlib::core::ctx::Consent;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::Change;
use gpuhost_stdlib::core::op::Op;
use gpuhost_stdlib::core::units::Secret;

use crate::screen::Screen;

/// Asks a person; `None` when nobody is there.
pub trait Person: Send + Sync {
    /// Whether somebody can be asked.
    fn is_there(&self) -> bool;
    /// Their answer.
    fn ask(&self, prompt: &str) -> Option<String>;
    /// Their answer, which is not shown while they type it.
    fn ask_hidden(&self, prompt: &str) -> Option<String>;
}

impl Person for Screen {
    fn is_there(&self) -> bool {
        self.can_ask()
    }
    fn ask(&self, prompt: &str) -> Option<String> {
        Screen::ask(self, prompt)
    }
    fn ask_hidden(&self, prompt: &str) -> Option<String> {
        Screen::ask_hidden(self, prompt)
    }
}

/// Answers the questions of one run.
pub struct Answers {
    /// `--yes` (empty) or `--yes=SITE`.
    pub yes: Option<String>,
    /// Name of the site; what has to be typed for removals.
    pub site: String,
    /// Whether the far side is the lab.
    pub lab: bool,
    /// The terminal.
    pub person: Arc<dyn Person>,
    /// Set once a removal was agreed to: the recipe listed it, single removals do not ask again.
    agreed: AtomicBool,
}

impl Answers {
    /// Answers for a run on `site`.
    #[must_use]
    pub fn new(yes: Option<String>, site: impl Into<String>, lab: bool, person: Arc<dyn Person>) -> Self {
        Answers { yes, site: site.into(), lab, person, agreed: AtomicBool::new(false) }
    }

    /// What the flags say: yes, no opinion, or that they name another site.
    fn flag(&self, destructive: bool) -> OpResult<bool> {
        match self.yes.as_deref() {
            None => Ok(false),
            Some("") => Ok(!destructive || self.lab),
            Some(name) if name == self.site => Ok(true),
            Some(name) => Err(OpError::refused(format!("`--yes={name}` names another site than `{}`", self.site))
                .hint(format!("if you mean this site: `--yes={}`", self.site))),
        }
    }

    fn decide(&self, question: &str, destructive: bool) -> OpResult<bool> {
        if self.flag(destructive)? {
            return Ok(true);
        }
        if !self.person.is_there() {
            let flag = if destructive && !self.lab { format!("--yes={}", self.site) } else { "--yes".to_owned() };
            return Err(OpError::refused(format!("nobody can be asked: {question}"))
                .hint(format!("run it in a terminal, or agree beforehand with `{flag}`")));
        }
        if destructive && !self.lab {
            let answer = self.person.ask(&format!("{question}\nType the site's name (`{}`) to agree:", self.site));
            return Ok(answer.is_some_and(|a| a == self.site));
        }
        let answer = self.person.ask(&format!("{question} [y/N]"));
        Ok(answer.is_some_and(|a| matches!(a.to_ascii_lowercase().as_str(), "y" | "yes")))
    }
}

impl Consent for Answers {
    fn confirm(&self, question: &str, destructive: bool) -> OpResult<bool> {
        let yes = self.decide(question, destructive)?;
        if yes && destructive {
            self.agreed.store(true, Ordering::SeqCst);
        }
        Ok(yes)
    }

    fn trust(&self, question: &str) -> OpResult<bool> {
        if !self.person.is_there() {
            let first = question.lines().next().unwrap_or_default();
            let what = first.split(". ").next().unwrap_or(first);
            return Err(OpError::refused(format!("{what}, and nobody can be asked")));
        }
        let answer = self.person.ask(&format!("{question} [y/N]"));
        Ok(answer.is_some_and(|a| matches!(a.to_ascii_lowercase().as_str(), "y" | "yes")))
    }

    fn destroy(&self, op: &Op, changes: &[Change]) -> OpResult<()> {
        if self.agreed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let what: Vec<String> = changes.iter().map(|c| format!("{} of {}", c.what, c.target)).collect();
        let question = if what.is_empty() {
            format!("{} removes {}", op.name(), op.target)
        } else {
            format!("{} removes {}", op.name(), what.join(", "))
        };
        if self.decide(&question, true)? {
            return Ok(());
        }
        Err(OpError::refused(format!("the removal of `{}` was declined", op.target)))
    }

    fn secret(&self, question: &str) -> OpResult<Secret> {
        let nobody = || OpError::denied(format!("nobody can be asked for the {question}"));
        if self.lab || !self.person.is_there() {
            return Err(nobody());
        }
        self.person.ask_hidden(&format!("{question}:")).map(Secret::new).ok_or_else(nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;
    impl Person for Nobody {
        fn is_there(&self) -> bool {
            false
        }
        fn ask(&self, _: &str) -> Option<String> {
            None
        }
        fn ask_hidden(&self, _: &str) -> Option<String> {
            None
        }
    }
    struct Says(&'static str);
    impl Person for Says {
        fn is_there(&self) -> bool {
            true
        }
        fn ask(&self, _: &str) -> Option<String> {
            Some(self.0.to_owned())
        }
        fn ask_hidden(&self, _: &str) -> Option<String> {
            Some(self.0.to_owned())
        }
    }

    fn answers(yes: Option<&str>, lab: bool, person: impl Person + 'static) -> Answers {
        Answers::new(yes.map(str::to_owned), "homelab", lab, Arc::new(person))
    }

    #[test]
    fn plain_yes_never_destroys_on_a_real_site() {
        assert!(answers(Some(""), false, Nobody).confirm("go on?", false).unwrap());
        let e = answers(Some(""), false, Nobody).confirm("remove?", true).unwrap_err();
        assert_eq!(e.stop, Some(gpuhost_stdlib::core::error::Stop::Refused));
        assert!(e.hint.unwrap().contains("--yes=homelab"));
        assert!(answers(Some("homelab"), false, Nobody).confirm("remove?", true).unwrap());
        assert!(answers(Some(""), true, Nobody).confirm("remove?", true).unwrap());
        assert!(answers(Some("other"), true, Nobody).confirm("remove?", true).is_err());
    }

    #[test]
    fn secrets_are_asked_of_a_person_at_a_real_site_only() {
        assert_eq!(answers(None, false, Says("pass")).secret("passphrase").unwrap().reveal(), "pass");
        assert!(answers(None, false, Nobody).secret("passphrase").is_err());
        assert!(answers(Some("homelab"), true, Says("pass")).secret("passphrase").is_err());
    }

    #[test]
    fn a_person_types_the_name_to_remove() {
        assert!(!answers(None, false, Says("y")).confirm("remove?", true).unwrap());
        assert!(answers(None, false, Says("homelab")).confirm("remove?", true).unwrap());
        assert!(answers(None, false, Says("y")).confirm("go on?", false).unwrap());
        assert!(answers(None, true, Says("y")).confirm("remove?", true).unwrap());
    }

    #[test]
    fn one_agreement_covers_the_removals_it_listed() {
        let a = answers(None, false, Says("homelab"));
        assert!(a.confirm("remove all?", true).unwrap());
        a.destroy(&Op::destroy("proxmox", "remove_vm", "k3s-cp1"), &[]).unwrap();
        assert!(answers(None, false, Nobody).destroy(&Op::destroy("proxmox", "remove_vm", "x"), &[]).is_err());
    }
}
