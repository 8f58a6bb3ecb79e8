//! Consul's operations, and the indexes of its queries.

use super::*;
use OperationFailureReason as Reason;

#[test]
fn set_keeps_lock_and_lease_and_counts_versions() {
    let mut store = Scenario::new();
    store.grant(7, 60);
    store.apply(Command::CreateSession(Box::new(session(1))));
    store.transact(requests(vec![put_with("a", "0", PutLease::Attach(LeaseId(7)))]));
    store.operate(lock("a", "1", 1));
    let revision = store.operate(Operation::Set { key: key("a"), value: value("2"), flags: 42 });

    let entry = store.entry("a").unwrap();
    assert_eq!((entry.value.clone(), entry.attributes().flags, entry.version), (value("2"), 42, 3));
    assert_eq!(
        (entry.attributes().session, entry.attributes().lock_index, entry.attributes().lease),
        (Some(session_id(1)), 1, Some(LeaseId(7)))
    );
    assert_eq!((entry.created.0, entry.modified.0), (revision - 2, revision));
}

#[test]
fn set_of_the_same_content_changes_nothing() {
    let mut store = Scenario::new();
    let revision = store.operate(set("a", "1"));
    assert_eq!(store.operate(set("a", "1")), revision);
    assert_eq!(store.operate(set("a", "2")), revision + 1);
}

#[test]
fn compare_and_set_needs_the_index_of_the_key() {
    let mut store = Scenario::new();
    let cas = |index| Operation::CompareAndSet { key: key("a"), value: value("x"), flags: 0, index };
    assert_eq!(store.fails(cas(5)), Reason::Index(0));
    let created = store.operate(cas(0));
    assert_eq!(store.fails(cas(0)), Reason::Index(created));
    assert_eq!(store.fails(cas(created + 1)), Reason::Index(created));
    assert_eq!(store.operate(cas(created)), created, "the content is the same");
}

#[test]
fn compare_and_delete_succeeds_without_a_key() {
    let mut store = Scenario::new();
    let cas = |index| Operation::CompareAndDelete { key: key("a"), index };
    let empty = store.operate(cas(9));
    assert_eq!(empty, FIRST_REVISION.0);
    let created = store.operate(set("a", "1"));
    assert_eq!(store.fails(cas(0)), Reason::Index(created));
    store.operate(cas(created));
    assert_eq!(store.content(), "");
}

#[test]
fn lock_has_one_holder_and_counts_acquisitions() {
    let mut store = Scenario::new();
    assert_eq!(store.fails(lock("a", "1", 1)), Reason::InvalidSession(session_id(1)));
    store.apply(Command::CreateSession(Box::new(session(1))));
    store.apply(Command::CreateSession(Box::new(session(2))));
    let revision = store.operate(lock("a", "1", 1));
    assert_eq!(store.operate(lock("a", "1", 1)), revision, "the holder locks again");
    store.operate(lock("a", "2", 1));
    assert_eq!(store.entry("a").unwrap().attributes().lock_index, 1);
    assert_eq!(store.fails(lock("a", "3", 2)), Reason::Held(session_id(1)));
    assert_eq!(store.fails(unlock("a", "3", 2)), Reason::NotHeld);
    assert_eq!(store.fails(unlock("b", "3", 2)), Reason::NotHeld);

    store.operate(unlock("a", "free", 1));
    let entry = store.entry("a").unwrap();
    assert_eq!(
        (entry.value.clone(), entry.attributes().session, entry.attributes().lock_index),
        (value("free"), None, 1)
    );
    store.operate(lock("a", "4", 2));
    assert_eq!(store.entry("a").unwrap().attributes().lock_index, 2);
    store.operate(Operation::Delete(key("a")));
    store.operate(lock("a", "5", 1));
    assert_eq!(store.entry("a").unwrap().attributes().lock_index, 1);
}

#[test]
fn operations_are_carried_out_together_or_not_at_all() {
    let mut store = Scenario::new();
    let revision = store.operate(set("p/a", "1"));
    let before = store.state.clone();
    let outcome = store.state.apply(Command::Operate(vec![
        set("p/a", "2"),
        Operation::Get(key("none")),
        Operation::CheckNotExists(key("p/a")),
        Operation::CheckIndex { key: key("p/a"), index: 99 },
        Operation::CheckSession { key: key("p/a"), session: session_id(1) },
    ]));
    assert_eq!(store.state, before);
    let Ok(Done::Failed(failures)) = outcome.result else { panic!("{outcome:?}") };
    let failures: Vec<_> = failures.into_iter().map(|failure| (failure.index, failure.reason)).collect();
    let expected = [
        (1, Reason::Missing(key("none"))),
        (2, Reason::Exists(key("p/a"))),
        (3, Reason::Index(revision + 1)),
        (4, Reason::NotHeld),
    ];
    assert_eq!(failures, expected);

    let outcome = store.state.apply(Command::Operate(vec![
        set("p/b", "2"),
        Operation::CheckIndex { key: key("p/a"), index: revision },
        Operation::GetPrefix(value("p/")),
        Operation::DeletePrefix(value("p/")),
        set("p/a", "3"),
        set("p/a", "4"),
        Operation::Get(key("p/a")),
        Operation::GetOrEmpty(key("p/a")),
        Operation::GetOrEmpty(key("none")),
    ]));
    let Ok(Done::Operated(entries)) = outcome.result else { panic!("{outcome:?}") };
    assert_eq!(text_of(&entries), "p/b=2 p/a=1 p/b=2 p/a=3 p/a=4 p/a=4 p/a=4 none=");
    assert_eq!(outcome.revision.0, revision + 1);
    assert_eq!(store.changes(revision), [format!("{} p/a=4", revision + 1)], "one change of a key");
    let entry = store.entry("p/a").unwrap();
    assert_eq!((entry.created.0, entry.version), (revision + 1, 1));
}

#[test]
fn key_has_an_index_of_its_own() {
    let mut store = Scenario::new();
    let query = Query::Key(key("a"));
    let absent = store.index(&query);
    assert!(absent >= 1);
    store.operate(set("b", "1"));
    assert_eq!(store.index(&query), absent);
    let created = store.operate(set("a", "1"));
    assert_eq!(store.index(&query), created);
    store.operate(set("ab", "1"));
    assert_eq!(store.index(&query), created);
    let deleted = store.operate(Operation::Delete(key("a")));
    assert_eq!(store.index(&query), deleted);
    store.operate(set("b", "2"));
    assert_eq!(store.index(&query), deleted);
    assert_eq!(store.operate(Operation::Delete(key("a"))), deleted + 1, "nothing to delete");
}

#[test]
fn prefix_has_the_index_of_its_last_change() {
    let mut store = Scenario::new();
    let prefix = Query::Prefix(value("p/"));
    let keys = Query::Keys { prefix: value("p/"), separator: value("/") };
    let steps = [
        (set("p/a", "1"), true),
        (set("q", "1"), false),
        (set("p/b", "1"), true),
        (Operation::Delete(key("p/b")), true),
        (Operation::Delete(key("q")), false),
        (set("p", "1"), false),
        (Operation::DeletePrefix(value("p/")), true),
        (set("q", "2"), false),
    ];
    for (operation, within) in steps {
        let before = store.index(&prefix);
        let revision = store.operate(operation.clone());
        let expected = if within { revision } else { before };
        assert_eq!((store.index(&prefix), store.index(&keys)), (expected, expected), "{operation:?}");
    }
}

#[test]
fn keys_are_cut_at_the_separator() {
    let mut store = Scenario::new();
    for text in ["a", "a/", "a/b/1", "a/b/2", "a/c", "a/d//", "b"] {
        store.operate(set(text, "1"));
    }
    let cases = [
        ("", "", "a a/ a/b/1 a/b/2 a/c a/d// b"),
        ("", "/", "a a/ b"),
        ("a/", "/", "a/ a/b/ a/c a/d/"),
        ("a/", "//", "a/ a/b/1 a/b/2 a/c a/d//"),
        ("a", "/", "a a/"),
        ("z", "/", ""),
    ];
    for (prefix, separator, expected) in cases {
        let query = Query::Keys { prefix: value(prefix), separator: value(separator) };
        let Content::Keys(keys) = store.ask(&query).content else { panic!() };
        let keys: Vec<_> = keys.iter().map(|key| key.escape_ascii().to_string()).collect();
        assert_eq!(keys.join(" "), expected, "{prefix} {separator}");
    }
}
