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

/// Applies what is due. Returns the commands.
fn run(expiry: &mut Expiry, now: Duration, state: &mut State) -> Vec<Command> {
    let commands = expiry.due(now);
    for command in &commands {
        assert!(state.apply(command.clone()).result.is_ok());
    }
    expiry.follow(now, state);
    commands
}

#[test]
fn lease_expires_at_its_deadline_and_not_before() {
    let mut state = lease(40);
    let mut expiry = Expiry::start(seconds(100), &state);
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
    #[allow(clippy::type_complexity)]
    let cases: [(fn(&State) -> Expiry, u64); 2] = [
        // Created under this leader.
        (|_| Expiry::start(Duration::ZERO, &State::new(0)), 25),
        // Taken over from another one, which has waited before.
        (|state| Expiry::start(Duration::ZERO, state), 20),
    ];
    for (start, expected) in cases {
        let mut state = session(20);
        let mut expiry = start(&state);
        expiry.follow(Duration::ZERO, &state);
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
    let mut expiry = Expiry::start(Duration::ZERO, &state);
    for now in (10..200).step_by(10).map(seconds) {
        assert_eq!(run(&mut expiry, now, &mut state), []);
        assert_eq!(expiry.renew(now, LEASE, &state), Some(Renewed { ttl: seconds(30), record: false }));
        assert_eq!(expiry.remaining(now, LEASE), Some(seconds(30)));
    }
    assert_eq!(expiry.renew(seconds(200), SESSION, &state), None);
}

#[test]
fn late_renewal_takes_the_record_back() {
    let mut state = lease(40);
    let mut expiry = Expiry::start(Duration::ZERO, &state);
    assert_eq!(expiry.due(seconds(20)).len(), 1);
    let renewed = expiry.renew(seconds(21), LEASE, &state).unwrap();
    assert!(renewed.record, "the record may not be applied yet");

    run(&mut expiry, seconds(41), &mut state);
    assert!(state.lifetime(LEASE).unwrap().remaining.is_some());
    assert!(expiry.renew(seconds(42), LEASE, &state).unwrap().record);
    state.apply(Command::RecordRemaining { id: LEASE, remaining: renewed.ttl });
    assert!(!expiry.renew(seconds(43), LEASE, &state).unwrap().record);
}

#[test]
fn expiring_lease_cannot_be_renewed_and_is_due_again() {
    let state = lease(4);
    let mut expiry = Expiry::start(Duration::ZERO, &state);
    expiry.due(seconds(2));
    expiry.due(seconds(3));
    assert_eq!(expiry.due(seconds(4)), [Command::Expire(LEASE)]);
    assert_eq!(expiry.renew(seconds(4), LEASE, &state), None);
    assert_eq!(expiry.due(seconds(4)), [], "the proposal may be under way");
    assert_eq!(expiry.due(seconds(4) + RETRY), [Command::Expire(LEASE)]);
}

#[test]
fn followed_states_start_and_stop_timers() {
    let mut state = lease(40);
    let mut expiry = Expiry::start(Duration::ZERO, &state);
    state.apply(Command::GrantLease { id: LeaseId(2), ttl: 60 });
    let second = LifetimeId::Lease(LeaseId(2));
    assert_eq!(expiry.remaining(seconds(5), second), None);
    assert!(expiry.renew(seconds(5), second, &state).is_some(), "a renewal follows the state");
    assert_eq!(expiry.remaining(seconds(5), second), Some(seconds(60)));

    state.apply(Command::RevokeLease(LeaseId(1)));
    state.apply(Command::GrantLease { id: LeaseId(1), ttl: 40 });
    expiry.follow(seconds(10), &state);
    assert_eq!(expiry.remaining(seconds(10), LEASE), Some(seconds(40)), "another grant of the same id");

    state.apply(Command::RecordRemaining { id: LEASE, remaining: seconds(1) });
    expiry.follow(seconds(12), &state);
    assert_eq!(expiry.remaining(seconds(12), LEASE), Some(seconds(38)));
    for id in [1, 2] {
        state.apply(Command::RevokeLease(LeaseId(id)));
    }
    expiry.follow(seconds(13), &state);
    assert_eq!(expiry.next(), None);
}

#[test]
fn new_leader_starts_from_the_recorded_time() {
    let mut state = lease(40);
    assert_eq!(Expiry::start(seconds(7), &state).remaining(seconds(7), LEASE), Some(seconds(40)));
    state.apply(Command::RecordRemaining { id: LEASE, remaining: seconds(15) });
    let mut expiry = Expiry::start(seconds(7), &state);
    assert_eq!(expiry.remaining(seconds(7), LEASE), Some(seconds(15)));
    assert_eq!(expiry.next(), Some(seconds(17)));
    assert!(expiry.renew(seconds(8), LEASE, &state).unwrap().record);
}

#[test]
fn lock_delay_ends_once() {
    let mut state = session(10);
    let key = Key::new("lock").unwrap();
    let lock = Operation::Lock { key: key.clone(), value: Bytes::new(), flags: 0, session: SESSION_ID };
    state.apply(Command::Operate(vec![lock]));
    let mut expiry = Expiry::start(Duration::ZERO, &state);
    let began = state.apply(Command::DestroySession(SESSION_ID)).revision;
    expiry.follow(seconds(5), &state);
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
    let mut expiry = Expiry::start(Duration::ZERO, &state);
    let lengths: Vec<_> = (0..4).map(|_| run(&mut expiry, seconds(10), &mut state).len()).collect();
    assert_eq!(lengths, [1000, 1000, 500, 0]);
    assert_eq!((expiry.next(), state.lifetimes().count()), (None, 0));
}

proptest! {
    /// Leaders change at random times, and the client renews until it stops.
    #[test]
    fn lifetime_is_kept_over_changes_of_the_leader(
        is_lease in any::<bool>(),
        elections in prop::collection::vec(1..60u64, 0..6),
        renewals in prop::collection::vec(1..39u64, 0..20),
    ) {
        let ttl = 40;
        let (mut state, id) = if is_lease { (lease(ttl), LEASE) } else { (session(ttl), SESSION) };
        let mut expiry = Expiry::start(Duration::ZERO, &state);
        let (mut elections, mut renewals) = (elections.into_iter(), renewals.into_iter());
        let mut next_election = elections.next();
        let mut next_renewal = renewals.next();
        let (mut renewed, mut since_renewal) = (0, 0);
        let mut ended = None;
        for now in 1..5000 {
            if next_election == Some(now) {
                expiry = Expiry::start(seconds(now), &state);
                next_election = elections.next().map(|pause| now + pause);
                since_renewal += 1;
            }
            if next_renewal == Some(now) {
                let renewal = expiry.renew(seconds(now), id, &state);
                prop_assert!(renewal.is_some(), "the client renews in time");
                if renewal.unwrap().record {
                    state.apply(Command::RecordRemaining { id, remaining: seconds(ttl) });
                }
                next_renewal = renewals.next().map(|pause| now + pause);
                (renewed, since_renewal) = (now, 0);
            }
            if run(&mut expiry, seconds(now), &mut state).contains(&Command::Expire(id)) {
                ended = Some(now);
                break;
            }
        }
        let life = ended.unwrap() - renewed;
        prop_assert!(life >= ttl);
        if since_renewal <= 1 {
            prop_assert!(life <= 2 * ttl, "{life}");
        }
    }
}
