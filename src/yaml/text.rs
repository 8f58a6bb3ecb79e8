//! Decoder of octets to text: UTF-8 with or without a byte-order mark, without control characters.

use super::{Fault, MAX_NODES, MAX_TEXT, position::Position};

/// Decodes a file and strips its byte-order mark.
///
/// Both YAML parsers split the result into the same lines. Characters on which they differ are refused, because a comment
/// for one parser must not be content for the other.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, Fault> {
    if bytes.len() > MAX_TEXT {
        return Err(Fault::new(Position::START, format!("the file is larger than {} KiB", MAX_TEXT / 1024))
            .with_hint("split it into several files"));
    }
    if is_utf16(bytes) {
        return Err(Fault::new(Position::START, "the file is UTF-16").with_hint("save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        Fault::new(Position::after(&good), "this is not UTF-8 text").with_hint(NOT_TEXT)
    })?;
    if let Some((at, c)) = text.char_indices().find(|(_, c)| is_refused(*c)) {
        let code = u32::from(c);
        return Err(Fault::new(Position::after(&text[..at]), format!("the character U+{code:04X} is not text"))
            .with_hint(if code > 0xff { "write it as an escape in double quotes" } else { NOT_TEXT }));
    }
    if let Some((line, _)) = text.lines().enumerate().find(|(_, line)| line.starts_with('%')) {
        return Err(Fault::new(Position { line: line + 1, column: 1 }, "YAML directives are not supported")
            .with_hint("delete the line"));
    }
    // Each node but the first follows one of these characters. The parser keeps a whole flow collection in memory before it
    // reports the first node, so counting marks would be too late.
    if text.bytes().filter(|b| matches!(b, b',' | b':' | b'[' | b'{')).nth(MAX_NODES).is_some() {
        return Err(too_many_nodes(Position::START));
    }
    Ok(text)
}

const NOT_TEXT: &str = "is this a YAML file? If it is, save it as UTF-8";

pub(super) fn too_many_nodes(place: Position) -> Fault {
    Fault::new(place, format!("the file has more than {MAX_NODES} values, including those repeated by aliases"))
        .with_hint("split it into several files")
}

/// Detects a byte-order mark of UTF-16 or UTF-32, or a NUL octet before or after a first ASCII character.
fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, b, ..] | [b, 0, ..] => b.is_ascii() && !b.is_ascii_control(),
        _ => false,
    }
}

/// Matches control characters other than tab and line ends, line ends of YAML 1.1 that 1.2 dropped, byte-order marks inside
/// the text, and noncharacters.
fn is_refused(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf8_with_or_without_a_byte_order_mark() {
        for bytes in [&b"a: b\n"[..], b"\xef\xbb\xbfa: b\n"] {
            assert_eq!(decode(bytes).unwrap(), "a: b\n");
        }
        assert_eq!(decode("a: é\r\nb:\t日本 🦀\r\n".as_bytes()).unwrap(), "a: é\r\nb:\t日本 🦀\r\n");
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn binary_data_is_refused_with_its_position() {
        let large = vec![b' '; MAX_TEXT + 1];
        let dense = vec![b','; MAX_NODES + 1];
        let cases: &[(&[u8], usize, usize, &str)] = &[
            (b"\x7fELF\x02\x01\x01\0", 1, 1, "U+007F is not text"),
            (b"\x1f\x8b\x08\0", 1, 2, "not UTF-8 text"),
            (b"a: b\nc: d\0e", 2, 5, "U+0000 is not text"),
            (b"a: b\nc\xc3\xa9: \xff", 2, 5, "not UTF-8 text"),
            (b"\xef\xbb\xbfa\x01", 1, 2, "U+0001 is not text"),
            ("a: x\u{2028}y".as_bytes(), 1, 5, "U+2028 is not text"),
            ("a: x\u{85}y".as_bytes(), 1, 5, "U+0085 is not text"),
            (b"\xff\xfea\0:\0", 1, 1, "UTF-16"),
            (b"a\0:\0", 1, 1, "UTF-16"),
            (b"\0a\0:", 1, 1, "UTF-16"),
            (b"# x\n%TAG ! a\n---\n", 2, 1, "directives"),
            (&large, 1, 1, "larger than 1024 KiB"),
            (&dense, 1, 1, "more than 250000 values"),
        ];
        for (bytes, line, column, message) in cases {
            let fault = decode(bytes).unwrap_err();
            assert!(fault.message.contains(message), "{fault:?}");
            assert_eq!(fault.place, Position { line: *line, column: *column }, "{fault:?}");
            assert!(fault.hint.is_some());
        }
    }
}
