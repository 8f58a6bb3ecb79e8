//! The DNS label of an id.

use super::name::{Label, MAX_LABEL};

/// Hexadecimal digits of the digest that distinguishes ids with the same label: 24 bits.
const MARK: usize = 6;

/// Returns the label of an id: stable, and unique in the cluster because the node's name ends it.
///
/// `web-1` on `host-a` becomes `web-1-host-a`. An id that is too long or has other characters is shortened and gets a
/// digest: `db:5432` becomes `db-5432-x1f2e3-host-a`.
pub fn label_of(id: &str, node: &Label) -> Label {
    let ending = format!("-{node}");
    let room = MAX_LABEL.saturating_sub(ending.len());
    let whole = id.strip_suffix(ending.as_str()).unwrap_or(id);
    if whole.len() <= room
        && whole.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && let Ok(label) = Label::parse(&format!("{whole}{ending}"))
    {
        return label;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
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
