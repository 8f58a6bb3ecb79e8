//! Clients that wait for a change, woken in batches.
//!
//! A change may concern ten thousand clients. They are woken a few at a time, so that other tasks run in between. An
//! answered client sends its next query immediately; the query is read after the clients that still wait for the change
//! have been woken ([`Waiters::poll_all_woken`]). The last client then waits for the responses to the others, not for
//! their next queries.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Most clients woken at once; the queue of a tokio worker has room for 256 tasks.
const BATCH: usize = 64;

/// Waiting clients by topic.
#[derive(Debug)]
pub(super) struct Waiters<Topic>(Mutex<State<Topic>>);

#[derive(Debug)]
struct State<Topic> {
    /// Registered clients in their order.
    topics: HashMap<Topic, BTreeMap<u64, Waker>>,
    /// Latest ticket.
    latest: u64,
    /// Clients to wake, first ones first.
    due: VecDeque<Waker>,
    /// Number of clients in `due` that are woken before the answered ones.
    unanswered: usize,
    /// Clients that were answered while others are due.
    answered: Vec<Waker>,
}

impl<Topic> Default for Waiters<Topic> {
    fn default() -> Self {
        let (topics, due, answered) = (HashMap::new(), VecDeque::new(), Vec::new());
        Self(Mutex::new(State { topics, latest: 0, due, unanswered: 0, answered }))
    }
}

impl<Topic: Clone + Eq + Hash> Waiters<Topic> {
    /// Registers a client for the next change of a topic and returns its ticket. A client with a ticket keeps it.
    pub(super) fn register(&self, topic: &Topic, ticket: Option<u64>, waker: &Waker) -> u64 {
        let mut state = self.state();
        let ticket = ticket.unwrap_or_else(|| {
            state.latest += 1;
            state.latest
        });
        let clients = match state.topics.get_mut(topic) {
            Some(clients) => clients,
            None => state.topics.entry(topic.clone()).or_default(),
        };
        clients.entry(ticket).and_modify(|known| known.clone_from(waker)).or_insert_with(|| waker.clone());
        ticket
    }

    /// Removes a client.
    pub(super) fn remove(&self, topic: &Topic, ticket: u64) {
        let mut state = self.state();
        if let Some(clients) = state.topics.get_mut(topic)
            && clients.remove(&ticket).is_some()
            && clients.is_empty()
        {
            state.topics.remove(topic);
        }
    }

    /// Makes the clients of all changed topics due. [`wake_batch`](Self::wake_batch) wakes them.
    pub(super) fn change(&self, is_changed: impl Fn(&Topic) -> bool) {
        let mut state = self.state();
        let State { topics, due, .. } = &mut *state;
        let before = due.len();
        topics.retain(|topic, clients| {
            let is_changed = is_changed(topic);
            if is_changed {
                due.extend(std::mem::take(clients).into_values());
            }
            !is_changed
        });
        // Changes that follow each other closely do not keep answered clients waiting.
        if state.unanswered == 0 && state.due.len() > before {
            state.unanswered = state.due.len();
        }
    }

    /// Wakes some of the clients that are due.
    pub(super) fn wake_batch(&self) {
        let mut state = self.state();
        let len = state.due.len().min(BATCH);
        let batch: Vec<Waker> = state.due.drain(..len).collect();
        state.unanswered = state.unanswered.saturating_sub(len);
        if state.unanswered == 0 {
            let State { due, answered, .. } = &mut *state;
            due.extend(answered.drain(..));
        }
        drop(state);
        batch.into_iter().for_each(Waker::wake);
    }

    /// Reports whether clients are due.
    pub(super) fn are_due(&self) -> bool {
        !self.state().due.is_empty()
    }

    /// Waits until the clients of the change that is being announced have been woken.
    pub(super) fn poll_all_woken(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.unanswered == 0 {
            return Poll::Ready(());
        }
        state.answered.push(context.waker().clone());
        Poll::Pending
    }

    /// Wakes all clients.
    pub(super) fn wake_all(&self) {
        self.change(|_| true);
        while self.are_due() {
            self.wake_batch();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<Topic>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    /// Topics of the tests.
    const NODES: u8 = 1;
    const ALL: u8 = 2;

    #[derive(Default)]
    struct Client(AtomicUsize);

    impl Wake for Client {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Client {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn change_wakes_the_clients_of_its_topics_once() {
        let (waiters, nodes, all, gone) =
            (Waiters::default(), <Arc<Client>>::default(), <Arc<Client>>::default(), <Arc<Client>>::default());
        let ticket = waiters.register(&NODES, None, &nodes.clone().into());
        assert_eq!(waiters.register(&NODES, Some(ticket), &nodes.clone().into()), ticket);
        waiters.register(&ALL, None, &all.clone().into());
        let ticket = waiters.register(&NODES, None, &gone.clone().into());
        waiters.remove(&NODES, ticket);
        for _ in 0..2 {
            waiters.change(|topic| *topic == NODES);
            waiters.wake_batch();
            assert!(!waiters.are_due());
        }
        assert_eq!([&nodes, &all, &gone].map(|client| client.woken()), [1, 0, 0]);
        waiters.wake_all();
        assert_eq!(all.woken(), 1);
        assert!(waiters.state().topics.is_empty());
    }

    #[test]
    fn removed_clients_leave_nothing_behind() {
        let waiters = Waiters::default();
        for _ in 0..3 {
            let ticket = waiters.register(&ALL, None, Waker::noop());
            waiters.remove(&ALL, ticket);
        }
        assert!(waiters.state().topics.is_empty());
    }

    #[test]
    fn answered_clients_are_woken_after_the_unanswered_ones() {
        let (waiters, first, waiting) = (Waiters::default(), <Arc<Client>>::default(), <Arc<Client>>::default());
        for _ in 0..3 * BATCH {
            waiters.register(&ALL, None, &waiting.clone().into());
        }
        let waker = first.clone().into();
        let context = Context::from_waker(&waker);
        assert!(waiters.poll_all_woken(&context).is_ready());
        waiters.change(|_| true);
        waiters.wake_batch();
        assert!(waiters.poll_all_woken(&context).is_pending());
        for batches in 2..=3 {
            // Another change does not extend the wait.
            waiters.register(&NODES, None, Waker::noop());
            waiters.change(|_| true);
            assert_eq!((waiting.woken(), first.woken()), ((batches - 1) * BATCH, 0));
            waiters.wake_batch();
        }
        assert!(waiters.poll_all_woken(&context).is_ready());
        waiters.wake_batch();
        assert_eq!((waiting.woken(), first.woken()), (3 * BATCH, 1));
    }
}
