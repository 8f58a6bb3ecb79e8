//! Sessions, leases and lock delays.

use super::*;
use OperationFailureReason as Reason;

fn create(store: &mut Scenario, session: Session) -> u64 {
    store.apply(Command::CreateSession(Box::new(session)))
}

#[test]
fn ended_session_releases_its_locks() {
    for end in [
        Command::DestroySession(session_id(1)),
        Command::Expire(LifetimeId::Session(session_id(1))),
        Command::Operate(vec![Operation::DestroySession(session_id(1))]),
    ] {
        let mut store = Scenario::new();
        create(&mut store, session(1));
        store.operate(lock("a", "1", 1));
        store.operate(lock("b", "1", 1));
        let locked = store.operate(set("c", "1"));
        let ended = store.apply(end.clone());

        assert_eq!(ended, locked + 1, "{end:?}");
        assert_eq!(store.content(), "a=1 b=1 c=1");
        let entry = store.entry("a").unwrap();
        assert_eq!((entry.attributes().session, entry.attributes().lock_index, entry.modified.0), (None, 1, ended));
        assert_eq!(store.changes(locked), [format!("{ended} a=1"), format!("{ended} b=1")]);
        assert_eq!((store.state.lifetimes().count(), store.state.lock_delays().count()), (0, 0));
        assert_eq!(store.apply(end), ended, "a session that is gone");
    }
}

#[test]
fn ended_session_deletes_its_keys() {
    let mut store = Scenario::new();
    create(&mut store, Session { behavior: Behavior::Delete, ..session(1) });
    store.operate(lock("a", "1", 1));
    store.operate(lock("b", "1", 1));
    store.operate(unlock("b", "1", 1));
    store.apply(Command::DestroySession(session_id(1)));
    assert_eq!(store.content(), "b=1");
}

#[test]
fn lock_delay_follows_the_end_of_a_session_only() {
    let delay = Duration::from_secs(15);
    for behavior in [Behavior::Release, Behavior::Delete] {
        let mut store = Scenario::new();
        create(&mut store, Session { lock_delay: delay, behavior, ..session(1) });
        create(&mut store, session(2));
        store.operate(lock("a", "1", 1));
        store.operate(unlock("a", "1", 1));
        store.operate(lock("a", "1", 2));
        store.operate(unlock("a", "1", 2));
        store.operate(lock("a", "2", 1));
        let began = Revision(store.apply(Command::DestroySession(session_id(1))));
        let delays: Vec<_> = store.state.lock_delays().map(|(key, delay)| (key.clone(), delay)).collect();
        assert_eq!(delays, [(key("a"), LockDelay { began, delay })]);

        assert_eq!(store.fails(lock("a", "3", 2)), Reason::LockDelay);
        store.operate(set("a", "written"));
        store.apply(Command::EndLockDelay { key: key("a"), began: Revision(1) });
        assert_eq!(store.fails(lock("a", "3", 2)), Reason::LockDelay);
        let revision = store.state.revision().0;
        assert_eq!(store.apply(Command::EndLockDelay { key: key("a"), began }), revision);
        store.operate(lock("a", "3", 2));
    }
}

#[test]
fn lock_delay_is_bounded() {
    let mut store = Scenario::new();
    create(&mut store, Session { lock_delay: Duration::MAX, ..session(1) });
    store.operate(lock("a", "1", 1));
    store.apply(Command::DestroySession(session_id(1)));
    assert_eq!(store.state.lock_delays().next().unwrap().1.delay, MAX_LOCK_DELAY);
}

#[test]
fn sessions_have_an_index_for_each_node() {
    let mut store = Scenario::new();
    let of = |node: &str| Query::Sessions { node: Some(node.to_owned()) };
    let all = Query::Sessions { node: None };
    let first = create(&mut store, session(1));
    let second = create(&mut store, Session { node: "host-b".to_owned(), ..session(2) });
    store.operate(set("a", "1"));
    assert_eq!(store.refused(Command::CreateSession(Box::new(session(1)))), Refusal::SessionExists(session_id(1)));
    assert_eq!((store.index(&of("host-a")), store.index(&of("host-b")), store.index(&all)), (first, second, second));
    assert_eq!(store.index(&of("host-c")), FIRST_REVISION.0);

    let ended = store.apply(Command::DestroySession(session_id(1)));
    assert_eq!((store.index(&of("host-a")), store.index(&of("host-b")), store.index(&all)), (ended, second, ended));
    let Content::Sessions(sessions) = store.ask(&of("host-b")).content else { panic!() };
    assert_eq!(sessions, [Session { node: "host-b".to_owned(), created: Revision(second), ..session(2) }]);
    let one = store.ask(&Query::Session(session_id(2)));
    assert_eq!((one.index, one.content), (second, Content::Sessions(sessions)));
    assert_eq!(store.ask(&Query::Session(session_id(1))).content, Content::Sessions(vec![]));
}

#[test]
fn ended_lease_deletes_its_keys() {
    for end in [Command::RevokeLease(LeaseId(7)), Command::Expire(LifetimeId::Lease(LeaseId(7)))] {
        let mut store = Scenario::new();
        assert_eq!(store.grant(7, 60), FIRST_REVISION.0, "a grant has no revision");
        store.grant(8, 60);
        create(&mut store, session(1));
        let attach = |text, id| put_with(text, "1", PutLease::Attach(LeaseId(id)));
        store.transact(requests(vec![attach("a", 7), attach("b", 7), attach("c", 7), attach("d", 8), put("e", "1")]));
        store.operate(lock("a", "held", 1));
        store.transact(requests(vec![put("b", "2"), attach("c", 8)]));
        let Content::Lease(Some(lease)) = store.ask(&Query::Lease(LeaseId(7))).content else { panic!() };
        assert_eq!((lease.ttl, lease.keys), (60, vec![key("a")]));

        store.apply(end);
        assert_eq!(store.content(), "b=2 c=1 d=1 e=1");
        assert!(store.state.sessions.get(&session_id(1)).unwrap().keys.is_empty());
        assert_eq!(store.ask(&Query::Leases).content, Content::Leases(vec![LeaseId(8)]));
        assert_eq!(store.ask(&Query::Lease(LeaseId(7))).content, Content::Lease(None));
        assert_eq!(store.refused(Command::RevokeLease(LeaseId(7))), Refusal::NoLease(LeaseId(7)));
        let revision = store.state.revision().0;
        assert_eq!(store.apply(Command::Expire(LifetimeId::Lease(LeaseId(7)))), revision);
    }
}

#[test]
fn lease_times_are_bounded_and_ids_are_unique() {
    let mut store = Scenario::new();
    store.grant(1, 0);
    store.grant(2, u64::MAX);
    assert_eq!(store.refused(Command::GrantLease { id: LeaseId(1), ttl: 9 }), Refusal::LeaseExists(LeaseId(1)));
    let ttls: Vec<_> = store.state.lifetimes().map(|(_, lifetime)| lifetime.ttl.as_secs()).collect();
    assert_eq!(ttls, [lease::MIN_TTL, lease::MAX_TTL]);
}

#[test]
fn remaining_time_is_recorded_until_it_is_whole_again() {
    let mut store = Scenario::new();
    let id = LifetimeId::Lease(LeaseId(1));
    store.grant(1, 60);
    let record = |seconds| Command::RecordRemaining { id, remaining: Duration::from_secs(seconds) };
    assert_eq!(store.apply(record(25)), FIRST_REVISION.0);
    assert_eq!(store.state.lifetime(id).unwrap().remaining, Some(Duration::from_secs(25)));
    store.apply(record(60));
    assert_eq!(store.state.lifetime(id).unwrap().remaining, None);
    store.apply(Command::RecordRemaining { id: LifetimeId::Lease(LeaseId(2)), remaining: Duration::ZERO });
    assert_eq!(store.state.lifetimes().count(), 1);
}

#[test]
fn session_without_ttl_has_no_lifetime() {
    let mut store = Scenario::new();
    create(&mut store, Session { ttl: None, ..session(1) });
    assert_eq!((store.state.sessions().count(), store.state.lifetimes().count()), (1, 0));
}
