//! Health state machine of a check, and the aggregate status of an instance.
//!
//! `rise` consecutive passes make a check healthy, `fall` consecutive failures make it unhealthy. The code is pure: a
//! result in, a status out. Scheduling and probing are in `checks`.

/// Result of a probe, and status of a check or an instance. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Healthy.
    Passing,
    /// Healthy with a warning: answered with a tenth of the weight.
    Warning,
    /// Unhealthy: not answered.
    Critical,
}

impl Status {
    /// Reports whether an instance with this status is answered.
    pub fn is_healthy(self) -> bool {
        self != Self::Critical
    }

    /// Returns the status in one word, for files, logs and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Parses a status.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical].into_iter().find(|status| status.as_str() == word)
    }
}

/// Status of one check, with the number of consecutive results against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    status: Status,
    /// Number of consecutive results that contradict `status`.
    against: u32,
    rise: u32,
    fall: u32,
}

impl Health {
    /// Returns a check without results. `rise` and `fall` of 0 count as 1.
    pub fn new(initial: Status, rise: u32, fall: u32) -> Self {
        Self { status: initial, against: 0, rise, fall }
    }

    /// Returns the current status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Applies a result and returns the new status if it changed.
    ///
    /// A warning counts as a pass: a healthy check changes between passing and warning at once.
    pub fn observe(&mut self, result: Status) -> Option<Status> {
        if result.is_healthy() == self.status.is_healthy() {
            self.against = 0;
        } else {
            self.against += 1;
            if self.against < if self.status.is_healthy() { self.fall } else { self.rise } {
                return None;
            }
            self.against = 0;
        }
        let changed = result != self.status;
        self.status = result;
        changed.then_some(result)
    }
}

/// Returns the worst status of the checks of an instance and the reason of the first check with that status.
///
/// Without checks: passing, with an empty reason.
pub fn add_up<'a>(checks: impl IntoIterator<Item = (Status, &'a str)>) -> (Status, &'a str) {
    let mut worst = (Status::Passing, "");
    for check in checks {
        if check.0 > worst.0 {
            worst = check;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::{Status::*, *};

    /// Parses statuses of one letter each.
    fn statuses(letters: &str) -> Vec<Status> {
        let status = |letter| match letter {
            'p' => Passing,
            'w' => Warning,
            'c' => Critical,
            other => panic!("{other:?} is no status"),
        };
        letters.chars().map(status).collect()
    }

    #[test]
    fn consecutive_results_change_the_status() {
        // Initial status, rise, fall, results, status after each result.
        let cases = [
            ("c", 1, 2, "p", "p"),
            ("c", 1, 2, "w", "w"),
            ("c", 3, 1, "ppp", "ccp"),
            ("c", 3, 1, "ppcppp", "cccccp"),
            ("c", 3, 1, "wpw", "ccw"),
            ("c", 0, 0, "pc", "pc"),
            ("p", 1, 1, "c", "c"),
            ("p", 1, 2, "cc", "pc"),
            ("p", 1, 2, "cpcpc", "ppppp"),
            ("p", 1, 2, "cwcw", "pwww"),
            ("p", 1, 3, "wpwp", "wpwp"),
            ("p", 2, 3, "cccpcpp", "ppccccp"),
            ("w", 1, 2, "cc", "wc"),
            ("w", 1, 2, "cp", "wp"),
        ];
        for (initial, rise, fall, results, expected) in cases {
            let mut health = Health::new(statuses(initial)[0], rise, fall);
            let after: Vec<Status> = statuses(results)
                .into_iter()
                .map(|result| {
                    let before = health.status();
                    let change = health.observe(result);
                    assert_eq!(change, (health.status() != before).then_some(health.status()));
                    health.status()
                })
                .collect();
            assert_eq!(after, statuses(expected), "{initial} rise {rise} fall {fall}: {results}");
        }
    }

    #[test]
    fn the_first_of_the_worst_checks_gives_status_and_reason() {
        let cases = [
            (vec![], (Passing, "")),
            (vec![(Passing, ""), (Passing, "")], (Passing, "")),
            (vec![(Passing, ""), (Warning, "disk")], (Warning, "disk")),
            (vec![(Warning, "disk"), (Critical, "first"), (Passing, ""), (Critical, "second")], (Critical, "first")),
        ];
        for (checks, expected) in cases {
            assert_eq!(add_up(checks.iter().copied()), expected, "{checks:?}");
        }
    }
}
