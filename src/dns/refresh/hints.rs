//! NOTIFY on its way from the servers to the task of its zone.
//!
//! A message may arrive while a primary is asked or sends the zone. The next one must not be lost: it may announce a later version.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::dns::zone::serial::is_later;

/// A message that a primary has a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Address of the primary.
    pub from: IpAddr,
    /// Serial in the message, if it has one.
    pub serial: Option<u32>,
}

/// The hint that waits, for any number of messages.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: Mutex<Option<Hint>>,
    notice: Notify,
}

impl Hints {
    /// Adds a hint. One that waits already becomes one for both: the newer sender with the later serial, or without one.
    pub(super) fn add(&self, hint: Hint) {
        let mut waiting = self.waiting();
        let serial = match *waiting {
            Some(Hint { serial: former, .. }) => former.zip(hint.serial).map(|(former, new)| later(former, new)),
            None => hint.serial,
        };
        *waiting = Some(Hint { serial, ..hint });
        drop(waiting);
        self.notice.notify_one();
    }

    /// Waits for a hint, and takes it.
    pub(super) async fn take(&self) -> Hint {
        loop {
            let waiting = self.waiting().take();
            if let Some(hint) = waiting {
                return hint;
            }
            self.notice.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Hint>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn later(former: u32, new: u32) -> u32 {
    if is_later(former, new) { former } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(from: u8, serial: Option<u32>) -> Hint {
        Hint { from: [192, 0, 2, from].into(), serial }
    }

    #[tokio::test]
    async fn no_hint_is_lost_while_another_one_waits() {
        let cases = [
            ("one", vec![hint(1, Some(5))], hint(1, Some(5))),
            ("a later one", vec![hint(1, Some(5)), hint(2, Some(6))], hint(2, Some(6))),
            ("an older one", vec![hint(1, Some(6)), hint(2, Some(5))], hint(2, Some(6))),
            ("the serial wraps", vec![hint(1, Some(u32::MAX)), hint(1, Some(0))], hint(1, Some(0))),
            ("one without a serial", vec![hint(1, Some(5)), hint(2, None), hint(3, Some(4))], hint(3, None)),
        ];
        for (case, messages, expected) in cases {
            let hints = Hints::default();
            messages.into_iter().for_each(|message| hints.add(message));
            assert_eq!(hints.take().await, expected, "{case}");
            assert_eq!(*hints.waiting(), None, "{case}");
        }
    }
}
