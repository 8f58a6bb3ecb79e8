//! Service file target: any octets yield definitions within their bounds, or diagnostics with a position.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use muster::{
    diagnostic::Diagnostic,
    files::{
        definitions,
        service_file::{Defaults, parse},
    },
    model::{
        name::Label,
        service::{
            Definition, MAX_ADDRESSES, MAX_CHECKS, MAX_INTERVAL, MAX_META, MAX_META_ENTRY, MAX_PORTS, MAX_STREAK,
            MAX_TAG, MAX_TAGS, MAX_TTL, MIN_INTERVAL,
        },
    },
};

use super::problems;

/// Parses a service file.
pub fn run(octets: &[u8]) {
    let path = Path::new("fuzz.yaml");
    let node = Label::parse("host-a").unwrap_or_else(|error| panic!("{error}"));
    let addresses = [IpAddr::from([10, 0, 0, 7])];
    let defaults = Defaults { node: &node, addresses: &addresses, allow_exec: true };
    match parse(path, octets, &defaults) {
        Err(found) => {
            let has_error = found.iter().any(Diagnostic::is_error);
            assert!(has_error || is_without_content(&found), "rejected without an error: {found:?}");
            problems::check(&found, path, octets);
        }
        Ok(file) => {
            assert!(
                !file.warnings.iter().any(Diagnostic::is_error),
                "an error in an accepted file: {:?}",
                file.warnings
            );
            problems::check(&file.warnings, path, octets);
            file.entries.iter().for_each(|entry| check(&entry.definition));
            let keys: BTreeSet<_> = file.entries.iter().map(|entry| &entry.definition.instance.key).collect();
            assert_eq!(keys.len(), file.entries.len(), "two definitions of one instance");
            let (merged, clashes) = definitions::merge([(path, &file.entries[..])].into_iter());
            assert_eq!(merged.len(), file.entries.len());
            problems::check(&clashes, path, octets);
        }
    }
}

/// Reports whether the only diagnostic is about missing content: such a file is rejected with a warning, and the
/// previous definitions stay.
fn is_without_content(found: &[Diagnostic]) -> bool {
    matches!(found, [only] if only.message.ends_with("has no content") || only.message == "the file is empty")
}

fn check(definition: &Definition) {
    let instance = &*definition.instance;
    let bounded = |len: usize, most: usize| assert!(len <= most, "{len} exceeds {most}: {definition:?}");
    assert_eq!(instance.check(), Ok(()), "{definition:?}");
    assert_eq!(instance.addresses.is_empty(), instance.host.is_some(), "no address: {definition:?}");
    bounded(instance.addresses.len(), MAX_ADDRESSES);
    bounded(instance.ports.len(), MAX_PORTS);
    bounded(instance.tags.len(), MAX_TAGS);
    bounded(instance.meta.len(), MAX_META);
    bounded(definition.checks.len(), MAX_CHECKS);
    instance.tags.iter().for_each(|tag| bounded(tag.len(), MAX_TAG));
    instance.meta.iter().for_each(|(key, value)| bounded(key.len() + 1 + value.len(), MAX_META_ENTRY));
    assert!(instance.ttl.is_none_or(|ttl| ttl <= MAX_TTL));
    assert!(instance.port != Some(0) && instance.ports.iter().all(|(_, port)| *port > 0), "port 0: {definition:?}");
    for check in &definition.checks {
        assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&check.interval), "{check:?}");
        assert!(!check.timeout.is_zero() && check.timeout <= check.interval, "{check:?}");
        assert!((1..=MAX_STREAK).contains(&check.rise) && (1..=MAX_STREAK).contains(&check.fall), "{check:?}");
        assert!((1..=check.fall).contains(&check.warn_after), "{check:?}");
    }
}
