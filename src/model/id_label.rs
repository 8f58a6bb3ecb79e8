//! The DNS label of an id.

use super::{
    name::{Label, MAX_LABEL},
    registered_name::RegisteredName,
};

/// Hexadecimal digits of the digest that distinguishes ids with the same label: 24 bits.
const MARK: usize = 6;

/// Returns the label of an id: stable, and unique on its node, whose name ends it.
///
/// `web-1` on `host-a` becomes `web-1-host-a`. An id that is too long or has other characters is shortened and gets a
/// digest: `db:5432` becomes `db-5432-x1f2e3-host-a`.
pub fn label_of(id: &str, node: &Label) -> Label {
    plain_label(id, node).unwrap_or_else(|| marked_label(id, id, node))
}

/// Returns the label of an id on an external node: stable, and unique in the cluster. `node` is the name of the node as a label.
///
/// `web` on `db1` becomes `web-db1`. With more hyphens, `web-1` on `db` and `web` on `1-db` would have the same label, which gets a
/// digest of id and node then: `web-1-x1f2e3-db`.
pub fn external_label_of(id: &str, name: &RegisteredName, node: &Label) -> Label {
    let is_ambiguous = id.contains('-') || name.as_str().contains('-');
    let plain = plain_label(id, node).filter(|_| !is_ambiguous);
    // Neither an id nor a name has control characters.
    plain.unwrap_or_else(|| marked_label(&format!("{id}\n{name}"), id, node))
}

/// Returns the label of an id without a digest; `None`: it is too long or has other characters.
fn plain_label(id: &str, node: &Label) -> Option<Label> {
    let ending = format!("-{node}");
    let room = MAX_LABEL.saturating_sub(ending.len());
    let whole = id.strip_suffix(ending.as_str()).unwrap_or(id);
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = whole.len() <= room && whole.bytes().all(is_plain);
    fits.then(|| Label::parse(&format!("{whole}{ending}")).ok()).flatten()
}

/// Returns the label of an id with a digest of `distinct`.
fn marked_label(distinct: &str, id: &str, node: &Label) -> Label {
    let room = MAX_LABEL.saturating_sub(node.as_str().len() + 1);
    let digest = ring::digest::digest(&ring::digest::SHA256, distinct.as_bytes());
    let mark = data_encoding::HEXLOWER.encode(digest.as_ref());
    let mark = format!("x{}", &mark[..MARK]);
    let plain: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let most = room.saturating_sub(mark.len() + 1);
    let stem = plain[..plain.len().min(most)].trim_matches('-');
    let short = node.as_str()[..node.as_str().len().min(MAX_LABEL - mark.len() - 1)].trim_end_matches('-');
    let text = if stem.is_empty() { format!("{mark}-{short}") } else { format!("{stem}-{mark}-{short}") };
    // Unreachable fallback: the text consists of letters, digits and inner hyphens within the length limit.
    Label::parse(&text).unwrap_or_else(|_| node.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{name::label, registered_name::name};

    #[test]
    fn labels_of_external_ids_differ_wherever_id_and_node_differ() {
        let of = |id: &str, node: &str| external_label_of(id, &name(node), &label(node)).to_string();
        assert_eq!(of("pg", "db1"), "pg-db1");
        let same = [("pg-eu", "db1"), ("pg", "eu-db1"), ("pg-eu-db1", "db1")];
        let mut labels: Vec<String> = same.iter().map(|(id, node)| of(id, node)).collect();
        // Of a service on a member.
        labels.push(label_of("pg-eu", &label("db1")).to_string());
        for (at, one) in labels.iter().enumerate() {
            assert!(!labels[at + 1..].contains(one), "{labels:?}");
        }
        assert!(labels[0].starts_with("pg-eu-x") && labels[0].ends_with("-db1"), "{labels:?}");
        assert!(labels[1].starts_with("pg-x") && labels[1].ends_with("-eu-db1"), "{labels:?}");
    }
}
