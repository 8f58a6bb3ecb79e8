//! Limits of space and of history.

use super::*;
use crate::store::state::history::{MAX_REVISIONS, MAX_TOMBSTONES};

#[test]
fn full_store_refuses_data_and_recovers_after_deletions() {
    let mut store = Scenario { state: State::new(20_000) };
    let large = "x".repeat(1000);
    let mut number = 0;
    while store.state.apply(Command::Operate(vec![set(&format!("key-{number}"), &large)])).result.is_ok() {
        number += 1;
        assert!(store.state.totals().octets <= 20_000);
    }
    assert!((10..20).contains(&number), "{number}");
    assert_eq!(store.refused(Command::Operate(vec![set("new", &large)])), Refusal::NoSpace);
    assert_eq!(store.refused(Command::Transact(requests(vec![put("new", &large)]))), Refusal::NoSpace);

    store.operate(set("key-0", &large));
    store.operate(set("key-0", "less"));
    for at in 1..number / 2 {
        store.operate(Operation::Delete(key(&format!("key-{at}"))));
    }
    store.operate(set("new", &large));
    store.operate(Operation::DeletePrefix(value("")));
    assert_eq!(store.state.totals().octets, 0);
}

#[test]
fn limit_that_is_lowered_still_lets_everything_end() {
    let mut store = Scenario::new();
    store.grant(1, 60);
    store.apply(Command::CreateSession(Box::new(session(1))));
    store.operate(lock("a", "1", 1));
    store.operate(set("b", "1"));
    store.transact(requests(vec![put_with("c", "1", PutLease::Attach(LeaseId(1)))]));
    store.state.set_max_octets(1);
    assert_eq!(store.refused(Command::GrantLease { id: LeaseId(2), ttl: 5 }), Refusal::NoSpace);
    assert_eq!(store.refused(Command::CreateSession(Box::new(session(2)))), Refusal::NoSpace);
    assert_eq!(store.refused(Command::Operate(vec![set("d", "1")])), Refusal::NoSpace);
    store.operate(unlock("a", "1", 1));
    store.apply(Command::Expire(LifetimeId::Lease(LeaseId(1))));
    store.apply(Command::DestroySession(session_id(1)));
    store.operate(Operation::DeletePrefix(value("")));
    assert_eq!(store.state.totals().octets, 0);
}

#[test]
fn agreed_limit_replaces_that_of_the_configuration() {
    let mut store = Scenario { state: State::new(1) };
    assert_eq!(store.refused(Command::Operate(vec![set("a", "1")])), Refusal::NoSpace);
    store.apply(Command::SetMaxOctets(AMPLE));
    store.state.set_max_octets(2);
    assert_eq!(store.state.agreed_max_octets(), Some(AMPLE));
    store.operate(set("a", "1"));
}

#[test]
fn totals_count_everything() {
    let mut store = Scenario::new();
    store.grant(1, 60);
    store.apply(Command::CreateSession(Box::new(session(1))));
    store.operate(set("abc", "1234"));
    let totals = store.state.totals();
    assert_eq!((totals.keys, totals.sessions, totals.leases), (1, 1, 1));
    assert_eq!(totals.octets, 3 * ENTRY_OCTETS + 7 + "host-a".len() as u64);
    assert_eq!(store.ask(&Query::Totals).content, Content::Totals(totals));
}

#[test]
fn history_keeps_a_bounded_number_of_revisions() {
    let mut store = Scenario::new();
    for number in 0..MAX_REVISIONS + 50 {
        store.operate(set("a", &number.to_string()));
    }
    let (revision, compacted) = (store.state.revision().0, store.state.compacted().0);
    assert_eq!(revision - compacted + 1, MAX_REVISIONS);
    assert_eq!(store.state.changes(Revision(0)).count() as u64, MAX_REVISIONS);
    assert_eq!(store.changes(revision - 1), [format!("{revision} a={}", revision - 2)]);
    assert_eq!(store.changes(revision + 5), [""; 0]);
    assert_eq!(store.state.changes(Revision(u64::MAX - 1)).count(), 0);
}

#[test]
fn history_keeps_to_its_share_of_the_space() {
    let mut store = Scenario { state: State::new(40_000) };
    for number in 0..100 {
        store.operate(set("a", &format!("{number:01000}")));
        assert!(store.state.totals().history_octets <= 10_000);
        assert!(store.state.changes(Revision(0)).count() >= 1);
    }
    assert_eq!(store.state.changes(Revision(0)).count(), 8);
}

#[test]
fn last_revision_stays_in_the_history() {
    let mut store = Scenario::new();
    for number in 0..10 {
        store.operate(set(&format!("key-{number}"), "1"));
    }
    store.state.set_max_octets(1);
    let revision = store.operate(Operation::DeletePrefix(value("")));
    assert_eq!(store.state.changes(Revision(revision - 1)).count(), 10);
    assert_eq!(store.state.compacted().0, revision);
}

#[test]
fn index_of_a_deleted_prefix_never_falls() {
    let mut store = Scenario::new();
    let old = Query::Prefix(value("old/"));
    store.operate(set("old/a", "1"));
    store.operate(set("old/b", "1"));
    let mut index = store.operate(Operation::Delete(key("old/b")));
    let mut rises = 0;
    for number in 0..MAX_TOMBSTONES + 100 {
        let name = format!("other/{number}");
        store.operate(set(&name, "1"));
        store.operate(Operation::Delete(key(&name)));
        let now = store.index(&old);
        assert!(now >= index);
        rises += usize::from(now > index);
        index = now;
    }
    assert_eq!(rises, 1, "tombstones are dropped together");
    assert!(store.state.history.tombstones().len() <= MAX_TOMBSTONES);
    let changed = store.operate(set("old/b", "2"));
    assert_eq!(store.index(&old), changed);
}

/// Results are bounded for all voters and forwarding nodes alike: nothing of a transaction above the bound is applied.
#[test]
fn transaction_with_large_results_is_refused_as_a_whole() {
    let mut store = Scenario::new();
    let content = "x".repeat(512 << 10);
    for number in 0..10 {
        store.operate(set(&format!("large/{number}"), &content));
    }
    let large = KeyRange::prefix("large/");
    let range = |limit| TransactionRequest::Range(Range { limit, ..Range::all(large.clone()) });
    let with_previous = TransactionRequest::Delete { range: large.clone(), with_previous: true };
    let nested = TransactionRequest::Transact(Box::new(requests(vec![range(5)])));
    let refused = [
        Command::Transact(requests(vec![put("a", "1"), range(0)])),
        Command::Transact(requests(vec![range(4), put("a", "1"), range(5)])),
        Command::Transact(requests(vec![range(4), nested])),
        Command::Transact(requests(vec![with_previous])),
        Command::Operate(vec![set("a", "1"), Operation::GetPrefix(value("large/"))]),
        Command::Operate(vec![Operation::Get(key("large/1")); 9]),
    ];
    for command in refused {
        assert_eq!(store.refused(command.clone()), Refusal::TooLarge, "{command:?}");
    }
    store.transact(requests(vec![range(4), put("a", "1"), range(3)]));
    store.transact(requests(vec![delete(large)]));
    assert_eq!(store.content(), "a=1");
}

#[test]
fn transaction_whose_ranges_visit_many_keys_is_refused() {
    let mut store = Scenario::new();
    for number in 0..1000 {
        store.operate(set(&format!("many/{number}"), ""));
    }
    let range = |count_only| {
        let all = Range::all(KeyRange::prefix("many/"));
        TransactionRequest::Range(Range { limit: 1, count_only, ..all })
    };
    store.transact(requests(vec![range(false); 100]));
    store.transact(requests(vec![range(true); 128]));
    assert_eq!(store.refused(Command::Transact(requests(vec![range(false); 101]))), Refusal::TooLarge);
}
