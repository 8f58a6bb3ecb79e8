//! How results of one check add up to a standing: `rise` passes in a row make healthy, `fall` failures in a row make
//! unhealthy. And how the checks of one instance add up. Pure: a result in, the standing out. Who asks, and when, is
//! in `checks`.

/// What one probe found, and the standing that results add up to. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Passing,
    /// Works, but somebody should look: answered with a tenth of the weight.
    Warning,
    /// Does not work: not answered.
    Critical,
}

impl Status {
    /// Whether an instance in this standing is answered.
    pub fn is_healthy(self) -> bool {
        self != Self::Critical
    }

    /// The word for it in files, logs and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The status of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical].into_iter().find(|status| status.as_str() == word)
    }
}

/// The standing of one check, and how far its results have gone towards turning it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    status: Status,
    /// Results in a row that contradict `status`.
    against: u32,
    rise: u32,
    fall: u32,
}

impl Health {
    /// A check without results. `rise` and `fall` of 0 count as 1.
    pub fn new(initial: Status, rise: u32, fall: u32) -> Self {
        Self { status: initial, against: 0, rise, fall }
    }

    /// The standing that the results so far add up to.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Takes a result in and returns the new standing where it is another.
    ///
    /// A warning counts as a pass: between passing and warning a healthy check changes at once.
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

/// What the checks of one instance add up to: the worst status, and the reason of the first check that has it.
///
/// No checks: passing, without a reason.
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

    /// One letter a status.
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
    fn results_turn_a_standing_only_in_a_row() {
        // initial, rise, fall, the results, the standing after each of them
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
    fn the_worst_check_decides_and_the_first_of_its_kind_tells_why() {
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
