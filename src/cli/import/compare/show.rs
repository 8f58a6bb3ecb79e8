//! Comparisons as a table and as JSON.

use std::{collections::BTreeSet, fmt::Display, net::SocketAddr};

use serde_json::{Value as Json, json};

use super::{super::dns_query::Target, Answers, CONSUL_SERVICE, Compared, Comparison, Subject};
use crate::{
    cli::{output::print, table::Table},
    printable::escaped_json,
};

/// Number of values in a cell of the table: three addresses of IPv6 fit a line. `--json` lists all.
const SHOWN: usize = 3;

/// Values of one set that another one lacks.
fn lacking<T: Ord + Clone>(from: &BTreeSet<T>, other: &BTreeSet<T>) -> Vec<T> {
    from.difference(other).cloned().collect()
}

/// The first values, and the number of the others.
fn join<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let mut values = values.into_iter();
    let mut shown: Vec<String> = values.by_ref().take(SHOWN).map(|value| value.to_string()).collect();
    match values.count() {
        0 => {}
        left => shown.push(format!("and {left} more")),
    }
    shown.join(" ")
}

fn endpoints(targets: impl IntoIterator<Item = Target>) -> Vec<SocketAddr> {
    targets.into_iter().map(SocketAddr::from).collect()
}

/// Describes the difference of two sets for people.
fn difference(missing: &str, extra: &str) -> String {
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => "same".to_owned(),
        (false, true) => format!("missing in muster: {missing}"),
        (true, false) => format!("only in muster: {extra}"),
        (false, false) => format!("missing in muster: {missing}; only in muster: {extra}"),
    }
}

/// Prints the names of services, every other name that differs, and the number of all.
pub(super) fn table(comparisons: &[Comparison]) {
    let mut table = Table::with_head(&["NAME", "TYPE", "CONSUL", "MUSTER", "RESULT"]);
    for comparison in comparisons.iter().filter(|comparison| comparison.question.is_base || !comparison.is_equal()) {
        let question = &comparison.question;
        let name = if question.is_base { &question.of } else { &question.text };
        let alone = |result: &str| [name.clone(), String::new(), String::new(), String::new(), result.to_owned()];
        match &comparison.result {
            Compared::NoName => table.row(alone("no DNS name")),
            Compared::Unanswered(reason) => table.row(alone(reason)),
            Compared::Answers(consul, muster) => {
                let (a, b) = (&consul.addresses, &muster.addresses);
                let result = difference(&join(lacking(a, b)), &join(lacking(b, a)));
                table.row([name.clone(), "A, AAAA".to_owned(), join(a), join(b), result]);
                if question.subject == Subject::Service {
                    let (a, b) = (&consul.instances, &muster.instances);
                    let result = difference(&join(endpoints(lacking(a, b))), &join(endpoints(lacking(b, a))));
                    let (a, b) = (join(endpoints(a.clone())), join(endpoints(b.clone())));
                    table.row([name.clone(), "SRV".to_owned(), a, b, result]);
                }
            }
        }
    }
    print(&format!("{table}{}\n", summary(comparisons)));
}

fn summary(comparisons: &[Comparison]) -> String {
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let of = |subject| {
        let of =
            comparisons.iter().map(|comparison| &comparison.question).filter(|question| question.subject == subject);
        of.map(|question| question.of.as_str()).collect::<BTreeSet<_>>().len()
    };
    let differ = comparisons.iter().filter(|comparison| !comparison.is_equal()).count();
    format!(
        "{} of {} and {} compared, {differ} differ; the service {CONSUL_SERVICE}, which is Consul's own servers, is left out",
        plural(comparisons.len(), "name"),
        plural(of(Subject::Service), "service"),
        plural(of(Subject::Node), "node"),
    )
}

/// Prints all comparisons.
pub(super) fn json(comparisons: &[Comparison]) {
    let side =
        |answers: &Answers| json!({"Addresses": answers.addresses, "Instances": endpoints(answers.instances.clone())});
    let values: Vec<Json> = comparisons
        .iter()
        .map(|comparison| {
            let question = &comparison.question;
            let (consul, muster, reason) = match &comparison.result {
                Compared::NoName => (Json::Null, Json::Null, Some("no DNS name")),
                Compared::Unanswered(reason) => (Json::Null, Json::Null, Some(reason.as_str())),
                Compared::Answers(consul, muster) => (side(consul), side(muster), None),
            };
            let subject = match question.subject {
                Subject::Service => "Service",
                Subject::Node => "Node",
            };
            json!({
                subject: question.of, "Name": question.text, "Equal": comparison.is_equal(), "Reason": reason, "Consul": consul,
                "Muster": muster,
            })
        })
        .collect();
    print(&escaped_json(&format!("{:#}\n", Json::Array(values))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_the_table_are_bounded() {
        for (count, expected) in
            [(0, ""), (2, "0 1"), (3, "0 1 2"), (4, "0 1 2 and 1 more"), (300, "0 1 2 and 297 more")]
        {
            assert_eq!(join(0..count), expected);
        }
    }
}
