//! What clients did to one key and saw of it, and the search for an order that explains it.
//!
//! A history is linearizable if every operation takes effect at one moment between its call and its return. The search is that
//! of Wing and Gong with the memory of Lowe: it never visits the same set of operations with the same value twice. An
//! operation of unknown outcome takes effect at any moment after its call, or never.

use std::collections::HashSet;

/// A value, unique for each write; `None`: the key is absent.
pub(super) type Value = Option<u64>;

/// What a client asked for, and saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Read this value.
    Read(Value),
    /// Set a value, or deleted the key.
    Write(Value),
    /// Replaced the write of one value by another.
    Swap { expected: Value, new: Value },
    /// Found something else than the write of the expected value; `found`, if the client was told.
    Mismatch { expected: Value, found: Option<Value> },
}

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Time of the call.
    pub(super) called: u64,
    /// Time of the return; `None`: the outcome is unknown.
    pub(super) returned: Option<u64>,
    pub(super) action: Action,
}

impl Operation {
    /// The value after the operation; `None` if it cannot take effect on this value.
    fn apply(&self, value: Value) -> Option<Value> {
        match self.action {
            Action::Read(seen) => (seen == value).then_some(value),
            Action::Write(new) => Some(new),
            Action::Swap { expected, new } => (expected == value).then_some(new),
            Action::Mismatch { expected, found } => {
                (expected != value && found.is_none_or(|found| found == value)).then_some(value)
            }
        }
    }

    fn end(&self) -> u64 {
        self.returned.unwrap_or(u64::MAX)
    }
}

/// Operations that have taken effect, as bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

impl Taken {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn with(&self, at: usize) -> Self {
        let mut taken = self.clone();
        taken.0[at / 64] |= 1 << (at % 64);
        taken
    }
}

/// Reports whether an order of the operations on a key, absent at first, explains all that clients saw.
pub(super) fn is_linearizable(operations: &[Operation]) -> bool {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let known = operations.iter().filter(|operation| operation.returned.is_some()).count();
    let start = Taken(vec![0; operations.len().div_ceil(64)].into());
    let mut visited = HashSet::from([(start.clone(), None)]);
    // Configurations to continue from: operations taken, how many of them are known, the first one not taken, and the value.
    let mut open = vec![(start, 0, 0, None)];
    while let Some((taken, taken_known, first, value)) = open.pop() {
        if taken_known == known {
            return true;
        }
        let next = |at: &usize| !taken.has(*at);
        let first = (first..operations.len()).find(next).unwrap_or(operations.len());
        let mut earliest_end = u64::MAX;
        let mut candidates = Vec::new();
        for at in (first..operations.len()).filter(next) {
            if operations[at].called > earliest_end {
                break;
            }
            earliest_end = earliest_end.min(operations[at].end());
            candidates.push(at);
        }
        // The last one pushed is tried first: the one that returned first. Unknown outcomes are tried last.
        candidates.sort_by_key(|at| std::cmp::Reverse(operations[*at].end()));
        for at in candidates {
            let Some(value) = operations[at].apply(value) else { continue };
            let taken = taken.with(at);
            if visited.insert((taken.clone(), value)) {
                open.push((taken, taken_known + usize::from(operations[at].returned.is_some()), first, value));
            }
        }
    }
    false
}

mod tests {
    use super::{
        Action::{Mismatch, Read, Swap, Write},
        *,
    };

    fn done(called: u64, returned: u64, action: Action) -> Operation {
        Operation { called, returned: Some(returned), action }
    }

    fn unknown(called: u64, action: Action) -> Operation {
        Operation { called, returned: None, action }
    }

    #[test]
    fn histories_with_an_order_are_accepted() {
        let cases = [
            ("no operation", vec![]),
            (
                "one after another",
                vec![
                    done(0, 1, Write(Some(1))),
                    done(2, 3, Read(Some(1))),
                    done(4, 5, Write(None)),
                    done(6, 7, Read(None)),
                ],
            ),
            (
                "reads during a write see either value",
                vec![done(0, 9, Write(Some(1))), done(1, 2, Read(None)), done(3, 4, Read(Some(1)))],
            ),
            (
                "writes at the same time",
                vec![done(0, 9, Write(Some(1))), done(0, 9, Write(Some(2))), done(10, 11, Read(Some(1)))],
            ),
            (
                "an unknown write takes effect late",
                vec![
                    unknown(0, Write(Some(1))),
                    done(1, 2, Read(None)),
                    done(3, 4, Write(Some(2))),
                    done(5, 6, Read(Some(1))),
                ],
            ),
            (
                "an unknown write never takes effect",
                vec![unknown(0, Write(Some(1))), done(1, 2, Write(Some(2))), done(3, 4, Read(Some(2)))],
            ),
            (
                "an unknown swap explains a mismatch",
                vec![
                    done(0, 1, Write(Some(1))),
                    unknown(2, Swap { expected: Some(1), new: Some(2) }),
                    done(3, 4, Mismatch { expected: Some(1), found: None }),
                    done(5, 6, Read(Some(2))),
                ],
            ),
            (
                "the first of two swaps wins",
                vec![
                    done(0, 9, Swap { expected: None, new: Some(1) }),
                    done(0, 9, Mismatch { expected: None, found: Some(Some(1)) }),
                ],
            ),
        ];
        for (name, history) in cases {
            assert!(is_linearizable(&history), "{name}");
        }
    }

    #[test]
    fn histories_without_an_order_are_refused() {
        let swap = |new| Swap { expected: Some(1), new: Some(new) };
        let cases = [
            ("stale read", vec![done(0, 1, Write(Some(1))), done(2, 3, Write(Some(2))), done(4, 5, Read(Some(1)))]),
            ("lost write", vec![done(0, 1, Write(Some(1))), done(2, 3, Read(None))]),
            ("lost deletion", vec![done(0, 1, Write(Some(1))), done(2, 3, Write(None)), done(4, 5, Read(Some(1)))]),
            ("reads that go back", vec![done(0, 9, Write(Some(1))), done(1, 2, Read(Some(1))), done(3, 4, Read(None))]),
            ("two swaps of one write", vec![done(0, 1, Write(Some(1))), done(2, 9, swap(2)), done(2, 9, swap(3))]),
            (
                "a swap that took effect twice",
                vec![
                    done(0, 1, Write(Some(1))),
                    done(2, 3, swap(2)),
                    done(4, 5, Write(Some(3))),
                    done(6, 7, Read(Some(2))),
                ],
            ),
            (
                "an unknown write that took effect twice",
                vec![
                    unknown(0, Write(Some(1))),
                    done(1, 2, Read(Some(1))),
                    done(3, 4, Write(Some(2))),
                    done(5, 6, Read(Some(2))),
                    done(7, 8, Read(Some(1))),
                ],
            ),
            (
                "a mismatch with the expected value",
                vec![done(0, 1, Write(Some(1))), done(2, 3, Mismatch { expected: Some(1), found: None })],
            ),
            ("a write before its call", vec![done(0, 1, Read(Some(1))), done(2, 3, Write(Some(1)))]),
            ("a value that was never written", vec![done(0, 1, Read(Some(7)))]),
        ];
        for (name, history) in cases {
            assert!(!is_linearizable(&history), "{name}");
        }
    }

    #[test]
    fn long_history_of_several_clients_is_checked_fast() {
        let mut history = Vec::new();
        for at in 0..400 {
            let (time, value) = (at * 10, Some(at));
            history.push(done(time, time + 25, Write(value)));
            history.push(if at % 100 == 3 {
                unknown(time, Write(Some(at + 5000)))
            } else {
                done(time + 11, time + 12, Read(value))
            });
        }
        history.push(done(20_000, 20_001, Read(Some(399))));
        assert!(is_linearizable(&history));
        history.push(done(20_002, 20_003, Read(Some(398))));
        assert!(!is_linearizable(&history));
    }
}
