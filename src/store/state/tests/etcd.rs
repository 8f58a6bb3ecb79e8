//! etcd's transactions and ranges.

use super::*;
use crate::store::{
    command::{Comparison, Condition, Target},
    query::{RevisionBounds, Sort, SortBy},
};

fn condition(text: &str, comparison: Comparison, target: Target) -> Condition {
    Condition { range: KeyRange::Key(key(text)), target, comparison }
}

fn span(start: &str, end: &str) -> KeyRange {
    KeyRange::Span { start: value(start), end: Some(value(end)) }
}

#[test]
fn counters_follow_etcd() {
    let mut store = Scenario::new();
    store.transact(requests(vec![put("a", "1")]));
    store.transact(requests(vec![put("a", "1")]));
    let entry = store.entry("a").unwrap();
    assert_eq!((entry.created.0, entry.modified.0, entry.version), (2, 3, 2), "an equal value is a change");
    store.transact(requests(vec![delete(KeyRange::Key(key("a")))]));
    store.transact(requests(vec![put("a", "2")]));
    let entry = store.entry("a").unwrap();
    assert_eq!((entry.created.0, entry.modified.0, entry.version), (5, 5, 1));
}

#[test]
fn transaction_without_effect_has_no_revision() {
    let mut store = Scenario::new();
    let outcome = store.transact(requests(vec![
        delete(KeyRange::prefix("none")),
        TransactionRequest::Range(Range::all(KeyRange::ALL)),
    ]));
    assert!(outcome.succeeded);
    assert_eq!(store.state.revision(), FIRST_REVISION);
}

#[test]
fn put_keeps_flags_and_lock_and_returns_the_former_entry() {
    let mut store = Scenario::new();
    store.apply(Command::CreateSession(Box::new(session(1))));
    store.operate(Operation::Lock { key: key("a"), value: value("1"), flags: 5, session: session_id(1) });
    let write = Put { key: key("a"), value: Some(value("2")), lease: PutLease::Detach, with_previous: true };
    let outcome = store.transact(requests(vec![TransactionRequest::Put(write)]));
    let [TransactionResponse::Put(Some(previous))] = &outcome.responses[..] else { panic!("{outcome:?}") };
    assert_eq!(previous.entry.value, value("1"));
    let entry = store.entry("a").unwrap();
    assert_eq!(
        (entry.attributes().flags, entry.attributes().session, entry.value),
        (5, Some(session_id(1)), value("2"))
    );
}

#[test]
fn put_that_keeps_needs_a_key() {
    let mut store = Scenario::new();
    store.grant(1, 60);
    let keep_value = |text| {
        let lease = PutLease::Attach(LeaseId(1));
        TransactionRequest::Put(Put { key: key(text), value: None, lease, with_previous: false })
    };
    let refuse = |store: &mut Scenario, request| store.refused(Command::Transact(requests(vec![request])));
    assert_eq!(refuse(&mut store, keep_value("a")), Refusal::NoKey(key("a")));
    assert_eq!(refuse(&mut store, put_with("a", "1", PutLease::Keep)), Refusal::NoKey(key("a")));
    let unknown = put_with("a", "1", PutLease::Attach(LeaseId(2)));
    assert_eq!(refuse(&mut store, unknown), Refusal::NoLease(LeaseId(2)));

    store.transact(requests(vec![put("a", "1")]));
    store.transact(requests(vec![keep_value("a")]));
    store.transact(requests(vec![put_with("a", "2", PutLease::Keep)]));
    let entry = store.entry("a").unwrap();
    assert_eq!((entry.value.clone(), entry.attributes().lease, entry.version), (value("2"), Some(LeaseId(1)), 3));
}

#[test]
fn delete_returns_the_deleted_entries() {
    let mut store = Scenario::new();
    store.transact(requests(vec![put("a", "1"), put("b", "2"), put("c", "3")]));
    let request = TransactionRequest::Delete { range: span("a", "c"), with_previous: true };
    let outcome = store.transact(requests(vec![request, delete(span("c", "a"))]));
    let [TransactionResponse::Delete { deleted: 2, previous }, TransactionResponse::Delete { deleted: 0, .. }] =
        &outcome.responses[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(text_of(previous), "a=1 b=2");
    assert_eq!(store.content(), "c=3");
}

#[test]
fn conditions_compare_every_field() {
    use Comparison::{Equal, Greater, Less, NotEqual};
    let mut store = Scenario::new();
    store.grant(9, 60);
    store.transact(requests(vec![put_with("a", "m", PutLease::Attach(LeaseId(9)))]));
    store.transact(requests(vec![put_with("a", "m", PutLease::Keep)]));
    let cases = [
        ("a", Equal, Target::Version(2), true),
        ("a", Greater, Target::Version(2), false),
        ("a", Greater, Target::Version(-1), true),
        ("a", Less, Target::Version(-1), false),
        ("a", Equal, Target::Created(2), true),
        ("a", Equal, Target::Modified(3), true),
        ("a", NotEqual, Target::Modified(3), false),
        ("a", Equal, Target::Value(value("m")), true),
        ("a", Less, Target::Value(value("n")), true),
        ("a", Equal, Target::Lease(9), true),
        ("none", Equal, Target::Version(0), true),
        ("none", Equal, Target::Created(0), true),
        ("none", Equal, Target::Lease(0), true),
        ("none", Equal, Target::Value(value("")), false),
        ("none", NotEqual, Target::Value(value("m")), false),
    ];
    for (text, comparison, target, expected) in cases {
        let transaction =
            Transaction { conditions: vec![condition(text, comparison, target)], ..Transaction::default() };
        let description = format!("{transaction:?}");
        assert_eq!(store.transact(transaction).succeeded, expected, "{description}");
    }
}

#[test]
fn condition_on_a_range_holds_for_all_its_keys() {
    let mut store = Scenario::new();
    store.transact(requests(vec![put("p/a", "1"), put("p/b", "1")]));
    store.transact(requests(vec![put("p/b", "1")]));
    for (prefix, target, expected) in [
        ("p/", Target::Value(value("1")), true),
        ("p/", Target::Version(1), false),
        ("p/a", Target::Version(1), true),
        ("q/", Target::Version(0), true),
        ("q/", Target::Value(value("")), false),
    ] {
        let condition = Condition { range: KeyRange::prefix(prefix), target, comparison: Comparison::Equal };
        let transaction = Transaction { conditions: vec![condition.clone()], ..Transaction::default() };
        assert_eq!(store.transact(transaction).succeeded, expected, "{condition:?}");
    }
}

#[test]
fn requests_see_those_before_them_and_conditions_do_not() {
    let mut store = Scenario::new();
    let absent = condition("a", Comparison::Equal, Target::Version(0));
    let nested = Transaction {
        conditions: vec![absent.clone()],
        success: vec![TransactionRequest::Range(Range::all(KeyRange::ALL))],
        failure: vec![],
    };
    let transaction = Transaction {
        conditions: vec![absent],
        success: vec![put("a", "1"), TransactionRequest::Transact(Box::new(nested)), put("b", "2")],
        failure: vec![put("a", "other")],
    };
    let outcome = store.transact(transaction.clone());
    let TransactionResponse::Transact(nested) = &outcome.responses[1] else { panic!("{outcome:?}") };
    let [TransactionResponse::Range(answer)] = &nested.responses[..] else { panic!("{outcome:?}") };
    assert_eq!(text_of(&answer.entries), "a=1");
    assert_eq!(store.changes(0), ["2 a=1", "2 b=2"]);
    assert!(!store.transact(transaction).succeeded);
    assert_eq!(store.content(), "a=other b=2");
}

#[test]
fn transaction_reads_a_past_revision() {
    let mut store = Scenario::new();
    store.transact(requests(vec![put("a", "1")]));
    store.transact(requests(vec![put("a", "2")]));
    let at =
        |revision| TransactionRequest::Range(Range { revision: Some(Revision(revision)), ..Range::all(KeyRange::ALL) });
    let outcome = store.transact(requests(vec![put("a", "3"), at(2)]));
    let TransactionResponse::Range(answer) = &outcome.responses[1] else { panic!("{outcome:?}") };
    assert_eq!(text_of(&answer.entries), "a=1");
    let future = Command::Transact(requests(vec![put("a", "4"), at(5)]));
    assert_eq!(store.refused(future), Refusal::Future(Revision(4)));
}

#[test]
fn transaction_writes_a_key_once() {
    let nested =
        |success, failure| TransactionRequest::Transact(Box::new(Transaction { conditions: vec![], success, failure }));
    let twice = [
        vec![put("a", "1"), put("a", "2")],
        vec![put("a", "1"), delete(KeyRange::Key(key("a")))],
        vec![delete(span("a", "c")), put("b", "2")],
        vec![put("a", "1"), nested(vec![put("a", "2")], vec![])],
        vec![delete(KeyRange::ALL), nested(vec![], vec![put("a", "2")])],
        vec![nested(vec![delete(KeyRange::ALL)], vec![]), put("a", "2")],
        vec![nested(vec![put("a", "1")], vec![]), nested(vec![], vec![put("a", "2")])],
    ];
    for success in twice {
        let mut store = Scenario::new();
        let refusal = store.refused(Command::Transact(requests(success.clone())));
        assert!(matches!(refusal, Refusal::DuplicateKey(_)), "{success:?}");
        let other_branch = Transaction { failure: success, ..Transaction::default() };
        assert!(matches!(store.refused(Command::Transact(other_branch)), Refusal::DuplicateKey(_)));
    }
    let once = [
        vec![delete(KeyRange::Key(key("a"))), delete(KeyRange::ALL)],
        vec![delete(span("a", "b")), put("b", "2")],
        vec![nested(vec![put("a", "1")], vec![put("a", "2")])],
    ];
    for success in once {
        Scenario::new().transact(requests(success));
    }
}

#[test]
fn range_selects_and_sorts() {
    let mut store = Scenario::new();
    for (text, content) in [("c", "1"), ("a", "3"), ("b", "2"), ("a", "2")] {
        store.transact(requests(vec![put(text, content)]));
    }
    let all = Range::all(KeyRange::ALL);
    let sorted = |by, descending| Range { sort: Some(Sort { by, descending }), ..all.clone() };
    let bounds = |bounds| Range { bounds, ..all.clone() };
    let none = RevisionBounds::default();
    let cases = [
        (all.clone(), "a=2 b=2 c=1", false, 3),
        (Range { limit: 2, ..all.clone() }, "a=2 b=2", true, 3),
        (Range { limit: 3, ..all.clone() }, "a=2 b=2 c=1", false, 3),
        (Range { keys_only: true, ..all.clone() }, "a= b= c=", false, 3),
        (Range { count_only: true, limit: 1, ..all.clone() }, "", false, 3),
        (Range::all(span("a", "c")), "a=2 b=2", false, 2),
        (Range::all(span("c", "a")), "", false, 0),
        (Range::all(span("a", "a")), "", false, 0),
        (Range::all(KeyRange::Key(key("b"))), "b=2", false, 1),
        (sorted(SortBy::Key, true), "c=1 b=2 a=2", false, 3),
        (sorted(SortBy::Version, false), "b=2 c=1 a=2", false, 3),
        (sorted(SortBy::Created, false), "c=1 a=2 b=2", false, 3),
        (sorted(SortBy::Modified, true), "a=2 b=2 c=1", false, 3),
        (sorted(SortBy::Value, false), "c=1 a=2 b=2", false, 3),
        (Range { limit: 1, ..sorted(SortBy::Modified, true) }, "a=2", true, 3),
        (Range { keys_only: true, ..sorted(SortBy::Value, true) }, "a= b= c=", false, 3),
        (bounds(RevisionBounds { min_modified: 4, ..none }), "a=2 b=2", false, 3),
        (bounds(RevisionBounds { max_modified: 4, ..none }), "b=2 c=1", false, 3),
        (bounds(RevisionBounds { min_created: 3, max_created: 3, ..none }), "a=2", false, 3),
        (Range { limit: 1, ..bounds(RevisionBounds { max_modified: 4, ..none }) }, "b=2", true, 3),
    ];
    for (range, expected, more, count) in cases {
        let (text, answer) = store.range(&range);
        assert_eq!((&*text, answer.more, answer.count), (expected, more, count), "{range:?}");
    }
}

#[test]
fn range_reads_a_past_revision() {
    let mut store = Scenario::new();
    store.transact(requests(vec![put("a", "1"), put("b", "1")]));
    store.transact(requests(vec![put("a", "2")]));
    store.transact(requests(vec![delete(KeyRange::Key(key("b"))), put("c", "1")]));
    let at = |revision| Range { revision: Some(Revision(revision)), ..Range::all(KeyRange::ALL) };
    for (revision, expected) in [(1, ""), (2, "a=1 b=1"), (3, "a=2 b=1"), (4, "a=2 c=1")] {
        assert_eq!(store.range(&at(revision)).0, expected);
    }
    let read = |store: &Scenario, revision| store.state.read(&Query::Range(at(revision))).unwrap_err();
    assert_eq!(read(&store, 5), Refusal::Future(Revision(4)));
    store.apply(Command::Compact(Revision(3)));
    assert_eq!(read(&store, 2), Refusal::Compacted(Revision(3)));
    assert_eq!(store.range(&at(3)).0, "a=2 b=1");
    assert_eq!(store.changes(0), ["3 a=2", "4 b deleted", "4 c=1"]);
    assert_eq!(store.refused(Command::Compact(Revision(3))), Refusal::Compacted(Revision(3)));
    assert_eq!(store.refused(Command::Compact(Revision(5))), Refusal::Future(Revision(4)));
}
