//! Text on one line: escapes for characters that drive a terminal, end a line or reorder the text around them.
//!
//! Names of files, output of checks and texts of peers and clients may contain any character. Logs, diagnostics and
//! commands show such texts only through this module.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    path::Path,
};

/// Reports whether a character is a control character, a bidirectional control (Unicode UAX #9 §2), a line or paragraph
/// separator, or a byte-order mark.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns the text with unprintable characters as escapes of Rust: `\n`, `\u{1b}`, `\u{202e}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    push_escaped(&mut line, text);
    Cow::Owned(line)
}

/// Returns the text with a space in place of each unprintable character, for texts of a limited length.
pub fn blanked(text: &str) -> String {
    text.replace(is_unprintable, " ")
}

/// Path of a file as text on one line. Octets that are not UTF-8 are written `\xNN`.
#[derive(Clone, Copy, Debug)]
pub struct PrintablePath<'a>(pub &'a Path);

impl fmt::Display for PrintablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_os_str().as_encoded_bytes().utf8_chunks() {
            f.write_str(&escaped(chunk.valid()))?;
            chunk.invalid().iter().try_for_each(|octet| write!(f, "\\x{octet:02x}"))?;
        }
        Ok(())
    }
}

/// Returns [`PrintablePath`] of a path.
pub fn path(path: &Path) -> PrintablePath<'_> {
    PrintablePath(path)
}

fn push_escaped(line: &mut String, text: &str) {
    for c in text.chars() {
        if is_unprintable(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

/// Returns JSON with escapes for the unprintable characters that a serializer writes as they are.
///
/// The input is JSON, in which such characters are in strings only. Serializers escape those below U+0020.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    let is_raw = |c: char| c >= ' ' && is_unprintable(c);
    if !json.contains(is_raw) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_raw(c) {
            // All of them are in the basic plane, so one `\uXXXX` is enough.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    /// Characters and their escapes.
    const UNPRINTABLE: &[(char, &str)] = &[
        ('\n', "\\n"),
        ('\r', "\\r"),
        ('\t', "\\t"),
        ('\0', "\\u{0}"),
        ('\u{7}', "\\u{7}"),
        ('\u{1b}', "\\u{1b}"),
        ('\u{7f}', "\\u{7f}"),
        ('\u{85}', "\\u{85}"),
        ('\u{9b}', "\\u{9b}"),
        ('\u{61c}', "\\u{61c}"),
        ('\u{200e}', "\\u{200e}"),
        ('\u{200f}', "\\u{200f}"),
        ('\u{2028}', "\\u{2028}"),
        ('\u{2029}', "\\u{2029}"),
        ('\u{202a}', "\\u{202a}"),
        ('\u{202e}', "\\u{202e}"),
        ('\u{2066}', "\\u{2066}"),
        ('\u{2069}', "\\u{2069}"),
        ('\u{feff}', "\\u{feff}"),
    ];

    #[test]
    fn unprintable_characters_are_escaped_or_blanked() {
        for (c, escape) in UNPRINTABLE {
            let text = format!("a{c}é");
            assert_eq!(escaped(&text), format!("a{escape}é"));
            assert_eq!(blanked(&text), "a é");
            assert_eq!(path(Path::new(&text)).to_string(), format!("a{escape}é"));
            let json = serde_json::to_string(&text).unwrap();
            let line = escaped_json(&json);
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            assert!(!line.contains(is_unprintable), "{line:?}");
        }
        for plain in ["", "web.yaml", "日本 🦀", "ـا", "\u{200d}"] {
            assert!(matches!(escaped(plain), Cow::Borrowed(same) if same == plain));
            assert_eq!((blanked(plain).as_str(), &*escaped_json(plain)), (plain, plain));
        }
    }

    #[test]
    fn octets_of_a_path_that_are_not_text_are_escaped() {
        let name = Path::new(OsStr::from_bytes(b"d/caf\xe9\n\xff.yaml"));
        assert_eq!(path(name).to_string(), "d/caf\\xe9\\n\\xff.yaml");
    }
}
