//! Health state machine of a check, and the aggregate status of an instance.
//!
//! `rise` consecutive passes make a check healthy, `fall` consecutive failures make it critical, and fewer may make it warn.
//! The counters are those of Consul. The code is pure: a result in, a status out. Scheduling and probing are in `checks`.

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
    pub const fn as_str(self) -> &'static str {
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

/// Numbers of consecutive results that change the status of a check. A number of 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes to become healthy. A warning counts as a pass.
    pub rise: u32,
    /// Failures to become critical.
    pub fall: u32,
    /// Failures to warn before the check is critical; without effect from `fall` on.
    pub warn_after: u32,
}

/// Status of one check, with the number of consecutive passes or failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    status: Status,
    /// Consecutive passes and warnings, up to `rise`.
    passes: u32,
    /// Consecutive failures, up to `fall`.
    failures: u32,
    thresholds: Thresholds,
}

impl Health {
    /// Returns a check with a status that its last results have confirmed.
    pub fn new(status: Status, thresholds: Thresholds) -> Self {
        let (passes, failures) = if status.is_healthy() { (thresholds.rise, 0) } else { (0, thresholds.fall) };
        Self { status, passes, failures, thresholds }
    }

    /// Returns a check whose first result decides whatever the thresholds are, as in Consul.
    pub fn undecided(status: Status, thresholds: Thresholds) -> Self {
        Self { status, passes: thresholds.rise, failures: thresholds.fall, thresholds }
    }

    /// Returns the current status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Applies a result. Returns the status that it leads to, which may be the current one; `None`: no threshold is reached,
    /// and the status stays.
    pub fn observe(&mut self, result: Status) -> Option<Status> {
        let Thresholds { rise, fall, warn_after } = self.thresholds;
        let next = if result.is_healthy() {
            self.failures = 0;
            self.passes = self.passes.saturating_add(1).min(rise.max(1));
            (self.passes >= rise).then_some(result)
        } else {
            self.passes = 0;
            self.failures = self.failures.saturating_add(1).min(fall.max(1));
            match self.failures {
                failures if failures >= fall => Some(Status::Critical),
                failures if failures >= warn_after => Some(Status::Warning),
                _ => None,
            }
        };
        self.status = next.unwrap_or(self.status);
        next
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

    /// Returns the status after each result.
    fn after(mut health: Health, results: &str) -> Vec<Status> {
        let observe = |result| {
            let next = health.observe(result);
            assert!(next.is_none_or(|next| next == health.status()));
            health.status()
        };
        statuses(results).into_iter().map(observe).collect()
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
            ("p", 2, 3, "wpwp", "wpwp"),
            ("p", 2, 3, "cccpcpp", "ppccccp"),
            // A warning after a failure is a pass, of which two in a row count.
            ("p", 2, 3, "cww", "ppw"),
            ("w", 1, 2, "cc", "wc"),
            ("w", 1, 2, "cp", "wp"),
        ];
        for (initial, rise, fall, results, expected) in cases {
            let health = Health::new(statuses(initial)[0], Thresholds { rise, fall, warn_after: fall });
            assert_eq!(after(health, results), statuses(expected), "{initial} rise {rise} fall {fall}: {results}");
        }
    }

    #[test]
    fn counters_of_a_registered_check_are_those_of_consul() {
        // SuccessBeforePassing, FailuresBeforeWarning, FailuresBeforeCritical, results, status after each result. The
        // initial status is critical.
        let cases = [
            (0, 0, 0, "pcpc", "pcpc"),
            (1, 1, 1, "pcwc", "pcwc"),
            // The first result counts whatever the thresholds are.
            (3, 5, 5, "p", "p"),
            (3, 3, 3, "cppp", "cccp"),
            (0, 1, 3, "pccc", "pwwc"),
            (0, 2, 3, "pccc", "ppwc"),
            (0, 3, 3, "pccc", "pppc"),
            (0, 1, 2, "ccpcc", "ccpwc"),
            (2, 1, 3, "pcpp", "pwwp"),
            (2, 1, 3, "pcwcw", "pwwww"),
            (2, 2, 4, "pcwww", "pppww"),
        ];
        for (rise, warn_after, fall, results, expected) in cases {
            let health = Health::undecided(Critical, Thresholds { rise, fall, warn_after });
            let case = format!("{rise} {warn_after} {fall}: {results}");
            assert_eq!(after(health, results), statuses(expected), "{case}");
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
