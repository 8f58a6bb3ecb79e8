//! Deadlines over time and over changes of the leader.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::store::{
    command::Operation,
    key::Revision,
    lease::LeaseId,
    session::{Behavior, Session, SessionId},
};

const LEASE: LifetimeId = LifetimeId::Lease(LeaseId(1));
const SESSION_ID: SessionId = SessionId(Uuid::from_u128(1));
const SESSION: LifetimeId = LifetimeId::Session(SESSION_ID);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn lease(ttl: u64) -> State {
    let mut state = State::new(1 << 30);
    state.apply(Command::GrantLease { id: LeaseId(1), ttl });
    state
}

fn session(ttl: u64) -> State {
    let mut state = State::new(1 << 30);
    state.apply(Command::CreateSession(Box::new(Session {
        id: SESSION_ID,
        name: String::new(),
        node: "host-a".to_owned(),
        ends_with_node: false,
        node_checks: vec![],
        service_checks: vec![],
        lock_delay: seconds(15),
        behavior: Behavior::Release,
        ttl: Some(seconds(ttl)),
        created: Revision(0),
    })));
    state
}

/// The first term in the tests. All leases of a state are granted in it.
const TERM: TermStart = TermStart { index: 1, grants: 0 };

/// A later term, which begins with this state.
fn term_after(state: &State, index: u64) -> TermStart {
    TermStart { index, grants: state.grants() }
}

/// A leader whose term has begun with the grants of the state.
fn leader(now: Duration, state: &State) -> Expiry {
    let mut expiry = Expiry::default();
    expiry.follow(now, state, TERM);
    expiry
}

/// Applies what is due. Returns the commands.
fn run(expiry: &mut Expiry, now: Duration, state: &mut State) -> Vec<Command> {
    let commands = expiry.due(now);
    for command in &commands {
        assert!(state.apply(command.clone()).result.is_ok());
    }
    expiry.follow(now, state, expiry.term);
    commands
}

/// Renews a lease at a leader that follows the state.
fn renew(expiry: &mut Expiry, now: Duration, id: LifetimeId, state: &State) -> Option<Renewed> {
    expiry.follow(now, state, expiry.term);
    expiry.renew(now, id)
}

#[test]
fn lease_expires_at_its_deadline_and_not_before() {
    let mut state = lease(40);
    let mut expiry = leader(seconds(100), &state);
    let mut commands = vec![];
    while let Some(next) = expiry.next() {
        assert_eq!(expiry.due(next - Duration::from_nanos(1)), []);
        commands.extend(run(&mut expiry, next, &mut state).into_iter().map(|command| (next.as_secs(), command)));
    }
    let record = |remaining| Command::RecordRemaining { id: LEASE, remaining: seconds(remaining) };
    assert_eq!(commands, [(120, record(20)), (130, record(10)), (140, Command::Expire(LEASE))]);
    assert_eq!(expiry.remaining(seconds(140), LEASE), None);
}

#[test]
fn session_expires_between_once_and_twice_its_ttl() {
    for (is_taken_over, expected) in [(false, 25), (true, 20)] {
        let mut state = session(20);
        let mut expiry = leader(Duration::ZERO, &state);
        if is_taken_over {
            expiry.follow(Duration::ZERO, &state, term_after(&state, 2));
            expiry.lead(Duration::ZERO);
        }
        let mut ended = None;
        while let Some(next) = expiry.next() {
            if run(&mut expiry, next, &mut state).contains(&Command::Expire(SESSION)) {
                ended = Some(next);
            }
        }
        assert_eq!(ended, Some(seconds(expected)));
        assert_eq!(state.sessions().count(), 0);
    }
}

#[test]
fn renewal_starts_from_the_beginning_and_writes_nothing() {
    let mut state = lease(30);
    let mut expiry = leader(Duration::ZERO, &state);
    for now in (10..200).step_by(10).map(seconds) {
        assert_eq!(run(&mut expiry, now, &mut state), []);
        assert_eq!(renew(&mut expiry, now, LEASE, &state), Some(Renewed { ttl: seconds(30), record: false }));
        assert_eq!(expiry.remaining(now, LEASE), Some(seconds(30)));
    }
    assert_eq!(renew(&mut expiry, seconds(200), SESSION, &state), None);
}

#[test]
fn late_renewal_takes_the_record_back() {
    let mut state = lease(40);
    let mut expiry = leader(Duration::ZERO, &state);
    assert_eq!(expiry.due(seconds(20)).len(), 1);
    let renewed = renew(&mut expiry, seconds(21), LEASE, &state).unwrap();
    assert!(renewed.record, "the record may not be applied yet");

    run(&mut expiry, seconds(41), &mut state);
    assert!(state.lifetime(LEASE).unwrap().remaining.is_some());
    assert!(renew(&mut expiry, seconds(42), LEASE, &state).unwrap().record);
    state.apply(Command::RecordRemaining { id: LEASE, remaining: renewed.ttl });
    assert!(!renew(&mut expiry, seconds(43), LEASE, &state).unwrap().record);
}

#[test]
fn expiring_lease_cannot_be_renewed_and_is_due_again() {
    let state = lease(4);
    let mut expiry = leader(Duration::ZERO, &state);
    expiry.due(seconds(2));
    expiry.due(seconds(3));
    assert_eq!(expiry.due(seconds(4)), [Command::Expire(LEASE)]);
    assert_eq!(renew(&mut expiry, seconds(4), LEASE, &state), None);
    assert_eq!(expiry.due(seconds(4)), [], "the proposal may be under way");
    assert_eq!(expiry.due(seconds(4) + RETRY), [Command::Expire(LEASE)]);
}

#[test]
fn followed_states_start_and_stop_timers() {
    let mut state = lease(40);
    let mut expiry = leader(Duration::ZERO, &state);
    state.apply(Command::GrantLease { id: LeaseId(2), ttl: 60 });
    let second = LifetimeId::Lease(LeaseId(2));
    assert_eq!(expiry.remaining(seconds(5), second), None);
    assert!(renew(&mut expiry, seconds(5), second, &state).is_some(), "a renewal follows the state");
    assert_eq!(expiry.remaining(seconds(5), second), Some(seconds(60)));

    state.apply(Command::RevokeLease(LeaseId(1)));
    state.apply(Command::GrantLease { id: LeaseId(1), ttl: 40 });
    expiry.follow(seconds(10), &state, TERM);
    assert_eq!(expiry.remaining(seconds(10), LEASE), Some(seconds(40)), "another grant of the same id");

    state.apply(Command::RecordRemaining { id: LEASE, remaining: seconds(1) });
    expiry.follow(seconds(12), &state, TERM);
    assert_eq!(expiry.remaining(seconds(12), LEASE), Some(seconds(1)), "recorded by the leader");
    for id in [1, 2] {
        state.apply(Command::RevokeLease(LeaseId(id)));
    }
    expiry.follow(seconds(13), &state, TERM);
    assert_eq!(expiry.next(), None);
}

#[test]
fn first_renewal_in_a_term_is_recorded() {
    let mut state = lease(40);
    let mut expiry = leader(Duration::ZERO, &state);
    assert!(!renew(&mut expiry, seconds(1), LEASE, &state).unwrap().record, "granted in the term");
    expiry.follow(seconds(2), &state, term_after(&state, 2));
    for now in [3, 4] {
        assert!(renew(&mut expiry, seconds(now), LEASE, &state).unwrap().record, "the record may not be applied yet");
    }
    state.apply(Command::RecordRemaining { id: LEASE, remaining: seconds(40) });
    assert!(!renew(&mut expiry, seconds(5), LEASE, &state).unwrap().record);
}

#[test]
fn next_leader_starts_from_the_beginning_only_what_may_have_been_renewed() {
    let mut state = lease(40);
    let mut follower = leader(Duration::ZERO, &state);
    // The leader may have renewed the lease.
    follower.follow(seconds(10), &state, term_after(&state, 2));
    assert_eq!(follower.remaining(seconds(10), LEASE), Some(seconds(40)));
    // The next one has not: it would have recorded that.
    follower.follow(seconds(20), &state, term_after(&state, 3));
    assert_eq!(follower.remaining(seconds(20), LEASE), Some(seconds(30)));
    // A renewal that is recorded.
    state.apply(Command::RecordRemaining { id: LEASE, remaining: seconds(40) });
    follower.follow(seconds(30), &state, follower.term);
    assert_eq!(follower.remaining(seconds(30), LEASE), Some(seconds(40)));
    follower.follow(seconds(35), &state, term_after(&state, 4));
    assert_eq!(follower.remaining(seconds(35), LEASE), Some(seconds(40)), "others may not have been recorded");
    // A time left, behind which every renewal is recorded.
    state.apply(Command::RecordRemaining { id: LEASE, remaining: seconds(15) });
    let restarted = leader(seconds(60), &state);
    assert_eq!(restarted.remaining(seconds(60), LEASE), Some(seconds(15)));
    follower.follow(seconds(60), &state, follower.term);
    follower.follow(seconds(65), &state, term_after(&state, 5));
    assert_eq!(follower.remaining(seconds(65), LEASE), Some(seconds(10)));
    follower.lead(seconds(68));
    assert_eq!(follower.remaining(seconds(68), LEASE), Some(seconds(10)), "a client has a quarter to renew");
}

#[test]
fn leader_that_is_confirmed_again_gives_clients_their_whole_time() {
    let state = lease(40);
    let mut expiry = leader(Duration::ZERO, &state);
    expiry.due(seconds(20));
    expiry.lead(seconds(100));
    assert_eq!(expiry.remaining(seconds(100), LEASE), Some(seconds(40)));
    assert!(renew(&mut expiry, seconds(101), LEASE, &state).unwrap().record, "a time left may be applied yet");
}

#[test]
fn proposed_end_stays_proposed_until_the_next_term() {
    let state = lease(40);
    let mut expiry = leader(Duration::ZERO, &state);
    assert_eq!(expiry.due(seconds(40)).len(), 1);
    expiry.lead(seconds(41));
    assert_eq!(expiry.renew(seconds(41), LEASE), None, "it may be applied yet");
    expiry.follow(seconds(42), &state, term_after(&state, 2));
    assert!(expiry.renew(seconds(42), LEASE).is_some());
}

#[test]
fn another_grant_of_the_same_id_has_its_whole_time() {
    let mut state = lease(40);
    let mut expiry = leader(Duration::ZERO, &state);
    assert_eq!(expiry.due(seconds(20)).len(), 1, "a time left is proposed");
    state.apply(Command::RevokeLease(LeaseId(1)));
    state.apply(Command::GrantLease { id: LeaseId(1), ttl: 40 });
    expiry.follow(seconds(21), &state, TERM);
    assert_eq!(expiry.remaining(seconds(21), LEASE), Some(seconds(40)));
}

#[test]
fn lock_delay_ends_once() {
    let mut state = session(10);
    let key = Key::new("lock").unwrap();
    let lock = Operation::Lock { key: key.clone(), value: Bytes::new(), flags: 0, session: SESSION_ID };
    state.apply(Command::Operate(vec![lock]));
    let mut expiry = leader(Duration::ZERO, &state);
    let began = state.apply(Command::DestroySession(SESSION_ID)).revision;
    expiry.follow(seconds(5), &state, TERM);
    assert_eq!(expiry.next(), Some(seconds(20)));
    let end = Command::EndLockDelay { key, began };
    assert_eq!(expiry.due(seconds(20)), std::slice::from_ref(&end));
    assert_eq!(expiry.due(seconds(20) + RETRY), [end], "the proposal failed");
    run(&mut expiry, seconds(25), &mut state);
    assert_eq!((expiry.next(), state.lock_delays().count()), (None, 0));
}

#[test]
fn many_leases_expire_in_parts() {
    let mut state = State::new(1 << 30);
    for id in 0..2500 {
        state.apply(Command::GrantLease { id: LeaseId(id), ttl: 10 });
    }
    let mut expiry = leader(Duration::ZERO, &state);
    let lengths: Vec<_> = (0..4).map(|_| run(&mut expiry, seconds(10), &mut state).len()).collect();
    assert_eq!(lengths, [1000, 1000, 500, 0]);
    assert_eq!((expiry.next(), state.lifetimes().count()), (None, 0));
}

/// Voters with clocks of their own, which see the state late, restart, and lead in turn.
struct Voters {
    state: State,
    term: TermStart,
    voters: Vec<Expiry>,
    leader: usize,
}

impl Voters {
    fn new(state: State) -> Self {
        let voters = (0..3).map(|at| leader(clock(at, 0), &state)).collect();
        Self { state, term: TERM, voters, leader: 0 }
    }

    fn follow(&mut self, at: usize, now: u64) {
        self.voters[at].follow(clock(at, now), &self.state, self.term);
    }

    fn elect(&mut self, at: usize, now: u64) {
        self.leader = at;
        self.term = term_after(&self.state, self.term.index + 1);
        self.follow(at, now);
        self.voters[at].lead(clock(at, now));
    }

    fn restart(&mut self, at: usize, now: u64) {
        self.voters[at] = Expiry::default();
        self.follow(at, now);
    }

    fn renew(&mut self, now: u64, id: LifetimeId) -> bool {
        self.follow(self.leader, now);
        let renewal = self.voters[self.leader].renew(clock(self.leader, now), id);
        if let Some(Renewed { record: true, ttl }) = renewal {
            self.state.apply(Command::RecordRemaining { id, remaining: ttl });
        }
        renewal.is_some()
    }

    /// Applies what is due at the leader.
    fn run(&mut self, now: u64) -> Vec<Command> {
        self.follow(self.leader, now);
        run(&mut self.voters[self.leader], clock(self.leader, now), &mut self.state)
    }
}

/// The time of a voter's clock.
fn clock(at: usize, now: u64) -> Duration {
    seconds(now + 1000 * at as u64)
}

proptest! {
    /// Leaders change at random times, and the client renews until it stops.
    #[test]
    fn lifetime_is_kept_over_changes_of_the_leader(
        is_lease in any::<bool>(),
        elections in prop::collection::vec((1..60u64, 0..3usize), 0..12),
        renewals in prop::collection::vec(1..39u64, 0..20),
        restarts in prop::collection::vec((1..200u64, 0..3usize), 0..3),
        lag in 1..3u64,
    ) {
        let ttl = 40;
        let (state, id) = if is_lease { (lease(ttl), LEASE) } else { (session(ttl), SESSION) };
        let mut voters = Voters::new(state);
        let (mut elections, mut renewals) = (elections.into_iter(), renewals.into_iter());
        let mut next_election = elections.next();
        let mut next_renewal = renewals.next();
        let (mut renewed, mut last_election, mut ended) = (0, None, None);
        for now in 1..5000 {
            if let Some((pause, at)) = next_election && now >= pause {
                voters.elect(at, now);
                last_election = Some(now);
                next_election = elections.next().map(|(pause, at)| (now + pause, at));
            }
            for (_, at) in restarts.iter().filter(|(time, at)| *time == now && *at != voters.leader).copied().collect::<Vec<_>>() {
                voters.restart(at, now);
            }
            if now % lag == 0 {
                (0..3).filter(|at| *at != voters.leader).collect::<Vec<_>>().into_iter().for_each(|at| voters.follow(at, now));
            }
            if next_renewal == Some(now) {
                prop_assert!(voters.renew(now, id), "the client renews in time");
                next_renewal = renewals.next().map(|pause| now + pause);
                renewed = now;
            }
            if voters.run(now).contains(&Command::Expire(id)) {
                ended = Some(now);
                break;
            }
        }
        let ended = ended.unwrap();
        let life = ended - renewed;
        prop_assert!(life >= ttl);
        if restarts.is_empty() {
            // A leader that is elected at the end leaves a quarter.
            let bound = (renewed + ttl * 13 / 8 + 2 * lag).max(last_election.map_or(0, |last| last + ttl / 4 + 1));
            prop_assert!(ended <= bound, "{ended} is behind {bound}");
        }
    }
}
