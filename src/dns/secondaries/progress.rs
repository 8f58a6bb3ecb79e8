//! Progress with one zone at one secondary: NOTIFY until the secondary responds, then questions for its serial until it has the
//! zone.
//!
//! A secondary that has accepted a NOTIFY may fail to copy the zone: it may have asked a node that was the primary a moment ago, or
//! reject a record. RFC 1996 leaves it to its refresh timer, for which BIND takes at least five minutes by default.

use std::time::Duration;

use tokio::time::Instant;

use super::request::Known;
use crate::model::zone_serial::is_later;

/// Shortest interval between two messages about one zone to one secondary. A secondary knows each change within a second.
const INTERVAL: Duration = Duration::from_millis(500);
/// Wait for the response to the first message; it doubles with each repetition.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Number of messages after which the secondary is left to its refresh timer (RFC 1996 §3.6: five repetitions).
const MAX_MESSAGES: u32 = 6;
/// Wait between the acceptance of a NOTIFY and the question for the serial, in which a small zone is copied.
const COPYING: Duration = Duration::from_secs(2);
/// Wait for the answer to a question.
const ANSWER: Duration = Duration::from_secs(1);
/// Number of questions without an answer after which the secondary is not asked any more: it may not answer this node.
const MAX_QUESTIONS: u32 = 3;
/// Pause before the first repetition of NOTIFY to a secondary that is behind; it doubles with each one.
const FIRST_REPETITION: Duration = Duration::from_secs(3);
/// Longest pause between two of these repetitions: the refresh of the generated zones.
const LONGEST_REPETITION: Duration = Duration::from_secs(60);
/// Time for which a secondary may have an older serial before the log says so.
const LATE: Duration = Duration::from_secs(20);
/// Repetitions of NOTIFY to a secondary that does not answer the zone: it may have it in some seconds, or not answer this node.
const MAX_REPETITIONS: u32 = 3;

/// Progress with one zone at one secondary.
#[derive(Debug)]
pub(super) struct Progress {
    /// Serial of the last NOTIFY.
    serial: u32,
    /// Transaction id of the last message.
    id: u16,
    /// Time of the last NOTIFY.
    notified: Instant,
    phase: Phase,
    /// Repetitions of NOTIFY about this serial to a secondary that had an older one.
    repetitions: u32,
    /// Time since which all answers had older serials.
    behind_since: Option<Instant>,
    /// Known serials of the secondary.
    known: Known,
    /// True if the response to the last NOTIFY was a refusal, which the log has.
    is_refused: bool,
    /// True if the log has that the secondary is late.
    is_late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// This number of NOTIFY messages was sent.
    Notified(u32),
    /// NOTIFY was accepted at this time.
    Accepted(Instant),
    /// This number of questions was sent, the last one at this time.
    Asked(u32, Instant),
    /// The secondary had an older serial at this time.
    Behind(Instant),
    /// The secondary has the zone, or is left to its timer.
    Done,
}

/// A step that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send NOTIFY.
    Notify,
    /// Ask for the SOA.
    Ask,
    /// Give up: the secondary does not respond to NOTIFY.
    GiveUp,
    /// Ask no more: the secondary does not answer.
    StopAsking,
}

/// What a response tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that the log does not have.
    None,
    /// The secondary refuses NOTIFY, with this code.
    Refused(u16),
    /// The secondary has had an older serial for long.
    Late {
        /// Serial of the last NOTIFY.
        serial: u32,
        /// Serial of the secondary.
        held: u32,
    },
    /// A secondary that was late has the zone.
    CaughtUp,
}

impl Progress {
    /// Returns the progress before the first message.
    pub(super) fn new(serial: u32, now: Instant) -> Self {
        let notified = now.checked_sub(INTERVAL).unwrap_or(now);
        Self {
            serial,
            id: 0,
            notified,
            phase: Phase::Notified(0),
            repetitions: 0,
            behind_since: None,
            known: Known::default(),
            is_refused: false,
            is_late: false,
        }
    }

    /// Returns the next step for a zone with this serial, and its time; `None` if nothing is left to do.
    pub(super) fn next(&self, serial: u32) -> Option<(Instant, Step)> {
        if serial != self.serial {
            return Some((self.notified + INTERVAL, Step::Notify));
        }
        match self.phase {
            Phase::Notified(0) => Some((self.notified + INTERVAL, Step::Notify)),
            Phase::Notified(sent) => {
                let step = if sent < MAX_MESSAGES { Step::Notify } else { Step::GiveUp };
                Some((self.notified + FIRST_WAIT * (1 << (sent - 1)), step))
            }
            Phase::Accepted(at) => Some((at + COPYING, Step::Ask)),
            Phase::Asked(asked, at) => {
                Some((at + ANSWER, if asked < MAX_QUESTIONS { Step::Ask } else { Step::StopAsking }))
            }
            Phase::Behind(at) => {
                let pause = FIRST_REPETITION * (1 << self.repetitions.min(LONGEST_REPETITION.as_secs().ilog2()));
                Some((at + pause.min(LONGEST_REPETITION), Step::Notify))
            }
            Phase::Done => None,
        }
    }

    /// Notes a NOTIFY message with this serial and id.
    pub(super) fn notified(&mut self, serial: u32, id: u16, now: Instant) {
        (self.phase, self.repetitions) = match self.phase {
            _ if serial != self.serial => (Phase::Notified(1), 0),
            Phase::Notified(sent) => (Phase::Notified(sent + 1), self.repetitions),
            _ => (Phase::Notified(1), self.repetitions + 1),
        };
        (self.serial, self.id, self.notified) = (serial, id, now);
    }

    /// Notes a question with this id.
    pub(super) fn asked(&mut self, id: u16, now: Instant) {
        let asked = if let Phase::Asked(asked, _) = self.phase { asked } else { 0 };
        (self.id, self.phase) = (id, Phase::Asked(asked + 1, now));
    }

    /// Leaves the secondary to its timer.
    pub(super) fn stop(&mut self) {
        (self.phase, self.repetitions, self.behind_since) = (Phase::Done, 0, None);
    }

    /// Reports whether a response to NOTIFY with this id is awaited.
    pub(super) fn awaits_response(&self, id: u16) -> bool {
        self.id == id && matches!(self.phase, Phase::Notified(1..))
    }

    /// Reports whether an answer with this id is awaited.
    pub(super) fn awaits_answer(&self, id: u16) -> bool {
        self.id == id && matches!(self.phase, Phase::Asked(..))
    }

    /// Takes the response to NOTIFY; `code` is 0 if it was accepted.
    pub(super) fn responded(&mut self, code: u16, now: Instant) -> News {
        if code == 0 {
            self.known.acknowledged = Some(self.serial);
            self.phase = Phase::Accepted(now);
            self.is_refused = false;
            return News::None;
        }
        self.stop();
        if std::mem::replace(&mut self.is_refused, true) { News::None } else { News::Refused(code) }
    }

    /// Takes the serial in an answer; `None`: the secondary does not answer the zone.
    pub(super) fn answered(&mut self, held: Option<u32>, now: Instant) -> News {
        self.known.held = held;
        match held {
            Some(held) if !is_later(self.serial, held) => {
                self.stop();
                if std::mem::take(&mut self.is_late) { News::CaughtUp } else { News::None }
            }
            None if self.repetitions >= MAX_REPETITIONS => {
                self.stop();
                News::None
            }
            held => {
                self.phase = Phase::Behind(now);
                let since = *self.behind_since.get_or_insert(now);
                match held.filter(|_| now - since >= LATE && !self.is_late) {
                    Some(held) => {
                        self.is_late = true;
                        News::Late { serial: self.serial, held }
                    }
                    None => News::None,
                }
            }
        }
    }

    /// Known serials of the secondary.
    pub(super) fn known(&self) -> Known {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A secondary that accepts each NOTIFY and answers questions with these serials, one after the other, and the last one for ever.
    /// Returns the seconds of all NOTIFY messages within two minutes, and what the log has.
    fn notified(answers: &[Option<u32>]) -> (Vec<u64>, Vec<News>) {
        let began = Instant::now();
        let (mut progress, mut answers) = (Progress::new(7, began), answers.iter().copied().peekable());
        let (mut notified, mut news) = (Vec::new(), Vec::new());
        while let Some((at, step)) = progress.next(7).filter(|(at, _)| *at < began + Duration::from_secs(120)) {
            match step {
                Step::Notify => {
                    progress.notified(7, 1, at);
                    notified.push((at - began).as_secs());
                    news.push(progress.responded(0, at));
                }
                Step::Ask => {
                    progress.asked(2, at);
                    let answer = answers.next().unwrap();
                    if answers.peek().is_none() {
                        answers = [answer; 99].into_iter().collect::<Vec<_>>().leak().iter().copied().peekable();
                    }
                    news.push(progress.answered(answer, at));
                }
                Step::GiveUp | Step::StopAsking => progress.stop(),
            }
        }
        news.retain(|news| *news != News::None);
        (notified, news)
    }

    #[test]
    fn notify_is_repeated_until_the_secondary_has_the_zone() {
        /// Case, answers, seconds of NOTIFY messages, lines in the log.
        type Case<'c> = (&'c str, &'c [Option<u32>], &'c [u64], &'c [News]);
        let late = News::Late { serial: 7, held: 6 };
        let cases: [Case<'_>; 5] = [
            ("copied at once", &[Some(7)], &[0], &[]),
            ("has a later version", &[Some(8)], &[0], &[]),
            ("refused by a node that was the primary", &[Some(6), Some(7)], &[0, 5], &[]),
            ("does not answer the zone", &[None], &[0, 5, 13, 27], &[]),
            ("rejects the zone", &[Some(6)], &[0, 5, 13, 27, 53, 103], &[late]),
        ];
        for (case, answers, times, news) in cases {
            assert_eq!(notified(answers), (times.to_vec(), news.to_vec()), "{case}");
        }
        let behind = [Some(6), Some(6), Some(6), Some(6), Some(7)];
        assert_eq!(notified(&behind), (vec![0, 5, 13, 27, 53], vec![late, News::CaughtUp]));
    }

    #[test]
    fn silent_secondary_is_left_to_its_timer() {
        let began = Instant::now();
        let mut progress = Progress::new(7, began);
        let mut times = Vec::new();
        while let Some((at, step)) = progress.next(7) {
            times.push(((at - began).as_secs(), step));
            match step {
                Step::Notify => progress.notified(7, 1, at),
                _ => progress.stop(),
            }
        }
        let notify = |at| (at, Step::Notify);
        assert_eq!(times, [notify(0), notify(1), notify(3), notify(7), notify(15), notify(31), (63, Step::GiveUp)]);
        assert_eq!(progress.next(8).map(|(_, step)| step), Some(Step::Notify), "a change is told");
    }
}
