//! Reader of sizes: `256MiB`.

use std::ops::RangeInclusive;

use super::{
    reader::Reader,
    tree::{Node, Value},
};

/// Units of sizes with their octets, largest first.
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Reader<'_, '_> {
    /// Reads a size such as `256MiB` in octets, within bounds.
    pub fn size(&self, node: &Node<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        const WHAT: &str = "a size such as `256MiB`";
        const FORM: &str = "a size is a whole number and one unit: KiB, MiB or GiB";
        let Value::Text(text) = &node.value else {
            self.mismatch_with_hint(node, WHAT, FORM);
            return None;
        };
        let Some(size) = parse_size(text) else {
            let hint = similar_size(text).map(|similar| format!("did you mean `{similar}`?"));
            self.mismatch_with_hint(node, WHAT, hint.unwrap_or_else(|| FORM.to_owned()));
            return None;
        };
        if !range.contains(&size) {
            let (least, most) = (show_size(*range.start()), show_size(*range.end()));
            self.mismatch(node, &format!("a size from {least} to {most}"));
            return None;
        }
        Some(size)
    }
}

/// Parses `64KiB`, `256MiB`, `1GiB`. A number that overflows is the largest size, which is out of every range.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (number, unit) = text.split_at(digits);
    let (_, octets) = SIZE_UNITS.iter().find(|(known, _)| *known == unit)?;
    Some(number.parse().unwrap_or(u64::MAX).saturating_mul(*octets))
}

/// Suggests a size for a malformed one: `256 MiB`, `256mib`, `256M` or `256MB`.
fn similar_size(text: &str) -> Option<String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let unit = compact.trim_start_matches(|c: char| c.is_ascii_digit());
    let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let number = compact.strip_suffix(unit)?;
    let similar = format!("{number}{}iB", letter.to_ascii_uppercase());
    parse_size(&similar).map(|_| similar)
}

/// Formats a size in the largest unit without a fraction.
fn show_size(octets: u64) -> String {
    let unit = SIZE_UNITS.iter().find(|(_, unit)| octets > 0 && octets.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{octets} octets"), |(name, unit)| format!("{}{name}", octets / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_binary_unit() {
        let cases = [
            ("64KiB", Some(64 << 10)),
            ("256MiB", Some(256 << 20)),
            ("1GiB", Some(1 << 30)),
            ("0MiB", Some(0)),
            ("99999999999999999999GiB", Some(u64::MAX)),
            ("1gib", None),
            ("1 GiB", None),
            ("1.5GiB", None),
            ("-1GiB", None),
            ("GiB", None),
            ("1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn malformed_sizes_have_a_suggestion() {
        let cases = [
            ("256 MiB", Some("256MiB")),
            ("256mib", Some("256MiB")),
            ("256M", Some("256MiB")),
            ("1 gb", Some("1GiB")),
            ("1.5GiB", None),
            ("256", None),
            ("256B", None),
            ("1TiB", None),
            ("MiB", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(similar_size(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_without_a_fraction() {
        let cases =
            [(0, "0 octets"), (1000, "1000 octets"), (1536, "1536 octets"), (3 << 19, "1536KiB"), (1 << 30, "1GiB")];
        for (octets, expected) in cases {
            assert_eq!(show_size(octets), expected);
        }
    }
}
