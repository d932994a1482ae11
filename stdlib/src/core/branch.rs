//! Where a thread of the recipe stands among the ops: which ended last on it, which are open. Fan-outs hand it on, so that
//! the journal says what had to wait for what.
use std::cell::RefCell;

/// A place in the order of ops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branch {
    last: Vec<u64>,
    open: Vec<u64>,
}

thread_local! {
    static HERE: RefCell<Branch> = const { RefCell::new(Branch { last: Vec::new(), open: Vec::new() }) };
}

/// Where this thread stands.
#[must_use]
pub fn here() -> Branch {
    HERE.with(|b| b.borrow().clone())
}

/// Puts this thread where another one stands (for a fan-out's threads).
pub fn stand(at: Branch) {
    HERE.with(|b| b.replace(at));
}

/// Goes on after all of these.
pub fn join(ends: impl IntoIterator<Item = Branch>) {
    let mut last: Vec<u64> = ends.into_iter().flat_map(|e| e.last).collect();
    last.sort_unstable();
    last.dedup();
    if !last.is_empty() {
        HERE.with(|b| b.borrow_mut().last = last);
    }
}

/// An op that is under way on this thread; ends with the value.
pub(super) struct Begun {
    id: u64,
    /// What it comes after.
    pub after: Vec<u64>,
    /// What it is a part of.
    pub within: Option<u64>,
}

/// Begins an op.
pub(super) fn begin(id: u64) -> Begun {
    HERE.with(|b| {
        let mut b = b.borrow_mut();
        let begun = Begun { id, after: b.last.clone(), within: b.open.last().copied() };
        b.open.push(id);
        begun
    })
}

impl Drop for Begun {
    fn drop(&mut self) {
        HERE.with(|b| {
            let mut b = b.borrow_mut();
            // Ops of one call may overlap: not always the last one ends first.
            b.open.retain(|o| *o != self.id);
            b.last = vec![self.id];
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_follow_each_other_nest_and_join() {
        stand(Branch::default());
        let one = begin(1);
        assert_eq!((one.after.clone(), one.within), (vec![], None));
        let two = begin(2);
        assert_eq!((two.after.clone(), two.within), (vec![], Some(1)));
        drop(two);
        drop(one);
        let start = here();
        let ends = [3, 4].map(|id| {
            stand(start.clone());
            let op = begin(id);
            assert_eq!((op.after.clone(), op.within), (vec![1], None));
            drop(op);
            here()
        });
        stand(start);
        join(ends);
        assert_eq!(begin(5).after, [3, 4]);
    }
}
