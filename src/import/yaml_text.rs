//! YAML that people read and go on with: block style, comments, and the origin of each value.

use std::fmt::Display;

use super::section::Place;

/// A YAML value with the key of Consul that it comes from.
#[derive(Clone, Debug)]
pub(super) struct Yaml {
    content: Content,
    /// The key that it was converted from. An invalid value is removed at the innermost value with an origin.
    origin: Option<Place>,
    /// Comment above the value.
    comment: Option<String>,
}

#[derive(Clone, Debug)]
enum Content {
    /// A scalar or a list, as written on one line.
    Line(String),
    List(Vec<Yaml>),
    Table(Vec<(String, Yaml)>),
}

/// Index of each table entry or list item on the path to a value.
type YamlPath = Vec<usize>;

impl Yaml {
    fn new(content: Content) -> Self {
        Self { content, origin: None, comment: None }
    }

    /// A text, quoted where necessary.
    pub(super) fn text(text: &str) -> Self {
        Self::new(Content::Line(scalar(text)))
    }

    /// A number, a boolean or another text that needs no quotes.
    pub(super) fn plain(value: impl Display) -> Self {
        Self::new(Content::Line(format!("{value}")))
    }

    /// A list of texts on one line.
    pub(super) fn line_of(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let texts: Vec<String> = texts.into_iter().map(|text| scalar(text.as_ref())).collect();
        Self::new(Content::Line(format!("[{}]", texts.join(", "))))
    }

    pub(super) fn list(items: Vec<Yaml>) -> Self {
        Self::new(Content::List(items))
    }

    pub(super) fn table() -> Self {
        Self::new(Content::Table(Vec::new()))
    }

    #[must_use]
    pub(super) fn from(self, origin: &Place) -> Self {
        Self { origin: Some(origin.clone()), ..self }
    }

    #[must_use]
    pub(super) fn with_comment(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()).filter(|comment: &String| !comment.is_empty()), ..self }
    }

    /// Adds an entry to a table. Empty tables and lists are left out.
    pub(super) fn set(&mut self, key: &str, value: Yaml) {
        if let Content::Table(entries) = &mut self.content
            && !value.is_empty()
        {
            entries.push((scalar(key), value));
        }
    }

    /// Adds a comment to the value itself.
    pub(super) fn comment_first(&mut self, comment: &str) {
        self.comment = Some(match self.comment.take() {
            Some(earlier) => format!("{earlier}\n{comment}"),
            None => comment.to_owned(),
        });
    }

    /// Origin of the first item of a list.
    pub(super) fn first_origin(&self) -> Option<Place> {
        match &self.content {
            Content::List(items) => items.first()?.origin.clone(),
            _ => None,
        }
    }

    /// Reports whether a table in the value has a key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        match &self.content {
            Content::Line(_) => false,
            Content::List(items) => items.iter().any(|item| item.has_key(key)),
            Content::Table(entries) => entries.iter().any(|(known, value)| known == key || value.has_key(key)),
        }
    }

    /// Removes the entry of the outermost table that a line of [`to_text`](Self::to_text), counted from 1, belongs to.
    pub(super) fn remove_entry(&mut self, line: usize) -> bool {
        let path = self.lines().into_iter().nth(line.saturating_sub(1)).map(|(_, path)| path).unwrap_or_default();
        if let Some(first) = path.first() {
            self.remove(&[*first]);
        }
        !path.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.content {
            Content::Line(_) => false,
            Content::List(items) => items.is_empty(),
            Content::Table(entries) => entries.is_empty(),
        }
    }

    /// The YAML text of a table or list.
    pub(super) fn to_text(&self) -> String {
        self.lines().into_iter().map(|(line, _)| line + "\n").collect()
    }

    /// The YAML text with the comment of the value itself.
    pub(super) fn to_document(&self) -> String {
        let mut lines = Vec::new();
        self.write_comment(0, &Vec::new(), &mut lines);
        lines.extend(self.lines());
        lines.into_iter().map(|(line, _)| line + "\n").collect()
    }

    /// Removes the innermost value with an origin around each line of [`to_text`](Self::to_text), counted from 1. Returns the
    /// removed ones: the index of the line, and the origin. A line without such a value is skipped.
    pub(super) fn remove_lines(&mut self, lines: &[usize]) -> Vec<(usize, Place)> {
        let all = self.lines();
        let mut found: Vec<(YamlPath, usize, Place)> = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let Some((_, path)) = line.checked_sub(1).and_then(|at| all.get(at)) else { continue };
            let origin = (1..=path.len()).rev().find_map(|len| {
                let path = &path[..len];
                Some((path.to_vec(), index, self.at(path)?.origin.clone()?))
            });
            found.extend(origin);
        }
        // Of values within each other, the outer one is removed. From the end, so that the other paths stay valid.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.dedup_by(|inner, outer| inner.0.starts_with(&outer.0));
        for (path, _, _) in found.iter().rev() {
            self.remove(path);
        }
        found.into_iter().map(|(_, index, origin)| (index, origin)).collect()
    }

    fn at(&self, path: &[usize]) -> Option<&Yaml> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match &self.content {
            Content::Line(_) => None,
            Content::List(items) => items.get(*first)?.at(rest),
            Content::Table(entries) => entries.get(*first)?.1.at(rest),
        }
    }

    /// Removes a value, and the tables and lists that are empty then.
    fn remove(&mut self, path: &[usize]) {
        let Some((first, rest)) = path.split_first() else { return };
        let is_gone = |inner: &mut Yaml| {
            inner.remove(rest);
            rest.is_empty() || inner.is_empty()
        };
        match &mut self.content {
            Content::Line(_) => {}
            Content::List(items) => {
                if items.get_mut(*first).is_some_and(is_gone) {
                    items.remove(*first);
                }
            }
            Content::Table(entries) => {
                if entries.get_mut(*first).is_some_and(|(_, inner)| is_gone(inner)) {
                    entries.remove(*first);
                }
            }
        }
    }

    /// The lines, each with the path of the value that it belongs to.
    fn lines(&self) -> Vec<(String, YamlPath)> {
        let mut lines = Vec::new();
        self.write(0, "", &mut Vec::new(), &mut lines);
        lines
    }

    /// Writes the value at an indent. `head` begins its first line: `- ` of an item.
    fn write(&self, indent: usize, head: &str, path: &mut YamlPath, lines: &mut Vec<(String, YamlPath)>) {
        let mut head = head;
        let margin = |head: &mut &str| {
            let margin = if head.is_empty() { " ".repeat(indent) } else { (*head).to_owned() };
            *head = "";
            margin
        };
        match &self.content {
            Content::Line(line) => lines.push((format!("{}{line}", margin(&mut head)), path.clone())),
            Content::List(items) => {
                for (number, item) in items.iter().enumerate() {
                    path.push(number);
                    item.write_comment(indent, path, lines);
                    let head = format!("{}- ", margin(&mut head));
                    item.write(indent + 2, &head, path, lines);
                    path.pop();
                }
            }
            Content::Table(entries) => {
                for (number, (key, value)) in entries.iter().enumerate() {
                    path.push(number);
                    // A comment may not stand between `- ` and the first key.
                    if head.is_empty() {
                        value.write_comment(indent, path, lines);
                    }
                    let margin = margin(&mut head);
                    match &value.content {
                        Content::Line(line) => lines.push((format!("{margin}{key}: {line}"), path.clone())),
                        Content::List(_) | Content::Table(_) => {
                            lines.push((format!("{margin}{key}:"), path.clone()));
                            value.write(indent + 2, "", path, lines);
                        }
                    }
                    path.pop();
                }
            }
        }
    }

    fn write_comment(&self, indent: usize, path: &YamlPath, lines: &mut Vec<(String, YamlPath)>) {
        for line in self.comment.iter().flat_map(|comment| comment.lines()) {
            lines.push((
                format!("{}# {}", " ".repeat(indent), crate::printable::blanked(line)).trim_end().to_owned(),
                path.clone(),
            ));
        }
    }
}

/// A text as a YAML scalar: without quotes if it is a word that no reader takes for another type, else in double quotes.
fn scalar(text: &str) -> String {
    let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@+%=~".contains(&b));
    let begins_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/' || b == b'_');
    let is_reserved =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_ascii_lowercase());
    let is_mark = text.contains(": ") || text.ends_with(':');
    if is_word && begins_well && !is_reserved && !is_mark {
        return text.to_owned();
    }
    let is_address = text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4())
        || text.parse::<std::net::SocketAddr>().is_ok_and(|address| address.is_ipv4());
    if is_address { text.to_owned() } else { quoted(text) }
}

/// A double-quoted scalar (YAML 1.2.2 §7.3.1).
fn quoted(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 2);
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            c if crate::printable::is_unprintable(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::Position;

    fn place(path: &str) -> Place {
        Place { at: Position::default(), path: path.to_owned() }
    }

    fn sample() -> Yaml {
        let mut check = Yaml::table();
        check.set("http", Yaml::text("http://127.0.0.1/?a=b c"));
        check.set("headers", {
            let mut headers = Yaml::table();
            headers.set("Host", Yaml::text("a").from(&place("check.header.Host")));
            headers
        });
        let mut root = Yaml::table();
        root.set("service", Yaml::text("web"));
        root.set(
            "tags",
            Yaml::list(vec![Yaml::text("v1").from(&place("tags[0]")), Yaml::text("7").from(&place("tags[1]"))]),
        );
        root.set("checks", Yaml::list(vec![check.from(&place("check")).with_comment("the page")]));
        root.set("meta", Yaml::table());
        root
    }

    #[test]
    fn values_are_written_in_blocks_with_comments() {
        assert_eq!(
            sample().to_text(),
            "service: web\ntags:\n  - v1\n  - \"7\"\nchecks:\n  # the page\n  - http: \"http://127.0.0.1/?a=b c\"\n    \
             headers:\n      Host: a\n"
        );
    }

    #[test]
    fn a_value_is_removed_by_any_of_its_lines() {
        let cases = [
            (4, Some("tags[1]"), "service: web\ntags:\n  - v1\nchecks:"),
            (7, Some("check"), "service: web\ntags:\n  - v1\n  - \"7\"\n"),
            (9, Some("check.header.Host"), "service: web\ntags:\n  - v1\n  - \"7\"\nchecks:\n  # the page\n"),
            (1, None, "service: web\ntags:"),
            (99, None, "service: web\ntags:"),
        ];
        for (line, origin, text) in cases {
            let mut yaml = sample();
            let removed = yaml.remove_lines(&[line]);
            assert_eq!(removed.first().map(|(_, place)| place.path.as_str()), origin, "line {line}");
            assert!(yaml.to_text().starts_with(text), "line {line}: {}", yaml.to_text());
        }
    }

    #[test]
    fn several_values_are_removed_at_once() {
        let mut yaml = sample();
        let removed = yaml.remove_lines(&[9, 4, 3, 7, 1, 3]);
        let paths: Vec<_> = removed.iter().map(|(index, place)| (*index, place.path.as_str())).collect();
        assert_eq!(paths, [(2, "tags[0]"), (1, "tags[1]"), (3, "check")]);
        assert_eq!(yaml.to_text(), "service: web\n");
    }

    #[test]
    fn texts_that_look_like_other_types_are_quoted() {
        let cases = [
            ("web", "web"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7:53", "10.0.0.7:53"),
            ("fd00::7", "fd00::7"),
            ("::1", "\"::1\""),
            ("v1.2", "v1.2"),
            ("1.2", "\"1.2\""),
            ("Yes", "\"Yes\""),
            ("~", "\"~\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a:", "\"a:\""),
            ("a #b", "\"a #b\""),
            ("x\u{85}\u{2028}\n", "\"x\\u0085\\u2028\\n\""),
            ("http://a.example:80/x?y=%20", "\"http://a.example:80/x?y=%20\""),
        ];
        for (text, expected) in cases {
            assert_eq!(scalar(text), expected, "{text:?}");
        }
    }
}
