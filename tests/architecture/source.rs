//! Reads from a Rust file what the rules of `tests/architecture.rs` need: the paths it names, the macros it calls, its
//! attributes, and which parts are test code.
//!
//! It works on tokens rather than a syntax tree, so that a path counts in a `use`, in an expression, and in the arguments of
//! a macro. It does not see method calls that do I/O (`path.exists()`), nor paths that a macro assembles.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One source file.
pub(crate) struct Source {
    /// The file, relative to the repository.
    pub(crate) file: String,
    /// The module path, such as `dns::zone`.
    pub(crate) module: String,
    /// The text.
    pub(crate) text: String,
    /// The items that the rules inspect, in file order.
    pub(crate) seen: Vec<Seen>,
    /// Modules in files of their own that are compiled for tests only.
    pub(crate) test_modules: Vec<String>,
    /// Lines that belong to tests.
    pub(crate) test_lines: usize,
}

/// An item of a file.
pub(crate) struct Seen {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The module that contains it, inline modules included.
    pub(crate) module: String,
    /// True for test code.
    pub(crate) test: bool,
    /// The item.
    pub(crate) what: What,
}

/// Kinds of items.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A path of two segments or more, or any that is imported: `["std", "fs", "File"]`. A glob is a segment `*`.
    Path(Vec<String>),
    /// A macro call, by the last segment of its path.
    Macro(String),
    /// An attribute, without spaces: `cfg(test)`.
    Attribute(String),
    /// The keyword.
    Unsafe,
}

impl Source {
    /// Reads a file; fails if it is not Rust.
    pub(crate) fn parse(file: &str, module: &str, text: &str) -> Result<Self, String> {
        let tokens: TokenStream = text.parse().map_err(|error| format!("{file}: {error}"))?;
        let mut scan = Scan::default();
        let segments = module.split("::").filter(|m| !matches!(*m, "lib" | "main" | ""));
        scan.walk(tokens, &segments.map(str::to_owned).collect::<Vec<_>>(), false);
        Ok(Self {
            file: file.to_owned(),
            module: module.to_owned(),
            text: text.to_owned(),
            seen: scan.seen,
            test_modules: scan.test_modules,
            test_lines: scan.test_lines,
        })
    }

    /// Number of lines without tests.
    pub(crate) fn code_lines(&self) -> usize {
        self.text.lines().count() - self.test_lines
    }

    /// The first paragraph of the `//!` comment at the head.
    pub(crate) fn header(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        lines.map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Default)]
struct Scan {
    seen: Vec<Seen>,
    test_modules: Vec<String>,
    test_lines: usize,
}

impl Scan {
    fn walk(&mut self, tokens: TokenStream, module: &[String], test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at, module, test);
        }
    }

    /// Reads the item at `at` and returns the start of the next.
    fn step(&mut self, tokens: &[TokenTree], at: usize, module: &[String], test: bool) -> usize {
        if let Some((attribute, next)) = attribute(tokens, at) {
            let text = attribute.stream().to_string().replace(char::is_whitespace, "");
            let for_tests = text.starts_with("cfg(test") || text.starts_with("cfg(all(test");
            self.see(&tokens[at], module, test, What::Attribute(text));
            self.walk(attribute.stream(), module, test);
            if !for_tests || test {
                return next;
            }
            let end = item_end(tokens, next);
            self.test_lines += last_line(&tokens[end - 1]) - line(&tokens[at]) + 1;
            if let [.., TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(_)] = &tokens[next..end]
                && word == "mod"
            {
                self.test_modules.push(join(module, &name.to_string()));
            }
            let mut inside = next;
            while inside < end {
                inside = self.step(&tokens[..end], inside, module, true);
            }
            return end;
        }
        match &tokens[at..] {
            [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..] if word == "mod" => {
                let inner: Vec<String> = module.iter().cloned().chain([name.to_string()]).collect();
                self.walk(body.stream(), &inner, test);
                at + 3
            }
            [TokenTree::Ident(word), ..] if word == "use" => {
                let end = (at..tokens.len()).find(|i| is_punct(&tokens[*i], ';')).unwrap_or(tokens.len());
                self.use_tree(&tokens[at + 1..end], &[], module, test);
                end
            }
            [TokenTree::Ident(_), ..] => self.path(tokens, at, module, test),
            [TokenTree::Group(group), ..] => {
                self.walk(group.stream(), module, test);
                at + 1
            }
            _ => at + 1,
        }
    }

    /// A path outside a `use`, a keyword, or the name of a macro.
    fn path(&mut self, tokens: &[TokenTree], at: usize, module: &[String], test: bool) -> usize {
        let (segments, next) = segments(tokens, at);
        let call = matches!(tokens.get(next), Some(t) if is_punct(t, '!'))
            && matches!(tokens.get(next + 1), Some(TokenTree::Group(_) | TokenTree::Ident(_)));
        if call && let Some(name) = segments.last() {
            self.see(&tokens[at], module, test, What::Macro(name.clone()));
        }
        if segments == ["unsafe"] {
            self.see(&tokens[at], module, test, What::Unsafe);
        }
        // `value.method::<T>()` and `<T as Trait>::item` begin with no path.
        let tail = at > 0 && matches!(&tokens[at - 1], TokenTree::Punct(p) if p.as_char() == '.');
        let qualified = at > 2 && is_colons(tokens, at - 2) && is_punct(&tokens[at - 3], '>');
        if segments.len() > 1 && !tail && !qualified {
            self.see(&tokens[at], module, test, What::Path(segments));
        }
        next
    }

    /// Reads the tree of a `use`, or a part of it below `prefix`.
    fn use_tree(&mut self, tokens: &[TokenTree], prefix: &[String], module: &[String], test: bool) {
        for branch in tokens.split(|token| is_punct(token, ',')) {
            // `::name` is a crate for certain, as any other first segment of ours is.
            let start = if is_colons(branch, 0) { 2 } else { 0 };
            let Some(first) = branch.get(start) else { continue };
            let (tail, next) = match first {
                TokenTree::Ident(_) => segments(branch, start),
                _ => (vec![], start),
            };
            let mut path = [prefix, &tail].concat();
            let rest = if is_colons(branch, next) { next + 2 } else { next };
            match branch.get(rest) {
                Some(TokenTree::Group(group)) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.use_tree(&inner, &path, module, test);
                    continue;
                }
                Some(star) if is_punct(star, '*') => path.push("*".to_owned()),
                _ => {}
            }
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            self.see(first, module, test, What::Path(path));
        }
    }

    fn see(&mut self, token: &TokenTree, module: &[String], test: bool, what: What) {
        self.seen.push(Seen { line: line(token), module: module.join("::"), test, what });
    }
}

/// Reads an attribute, inner or outer, and returns the start of what follows.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(&Group, usize)> {
    let hash = tokens.get(at).filter(|t| is_punct(t, '#')).map(|_| at + 1)?;
    let open = if tokens.get(hash).is_some_and(|t| is_punct(t, '!')) { hash + 1 } else { hash };
    match tokens.get(open) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Some((group, open + 1)),
        _ => None,
    }
}

/// Returns the end of the item at `at`: behind its `;` or its braces.
fn item_end(tokens: &[TokenTree], at: usize) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';'),
    };
    // The braces of `use a::{b, c};` do not end it.
    let mut words = tokens[at..].iter().filter_map(|t| if let TokenTree::Ident(word) = t { Some(word) } else { None });
    let import = words.find(|word| *word != "pub").is_some_and(|word| word == "use");
    let end = (at..tokens.len()).find(|i| if import { is_punct(&tokens[*i], ';') } else { is_end(&tokens[*i]) });
    end.map_or(tokens.len(), |end| end + 1)
}

/// Returns the segments of the path at `at` and its end. `::<` ends a path.
fn segments(tokens: &[TokenTree], at: usize) -> (Vec<String>, usize) {
    let (mut path, mut next) = (vec![], at);
    while let Some(TokenTree::Ident(word)) = tokens.get(next) {
        path.push(word.to_string());
        next += 1;
        if !(is_colons(tokens, next) && matches!(tokens.get(next + 2), Some(TokenTree::Ident(_)))) {
            break;
        }
        next += 2;
    }
    (path, next)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at..at + 2), Some([a, b]) if is_punct(a, ':') && is_punct(b, ':'))
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn last_line(token: &TokenTree) -> usize {
    token.span().end().line
}

/// A path in a module.
pub(crate) fn join(module: &[String], name: &str) -> String {
    module.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Source {
        Source::parse("src/a/b.rs", "a::b", text).unwrap()
    }

    /// Paths in `text`; those of tests in parentheses.
    fn paths(text: &str) -> Vec<String> {
        let shown = |seen: Seen| match seen.what {
            What::Path(path) if seen.test => Some(format!("({})", path.join("::"))),
            What::Path(path) => Some(path.join("::")),
            _ => None,
        };
        parse(text).seen.into_iter().filter_map(shown).collect()
    }

    #[test]
    fn paths_are_found_in_all_positions() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("an import", "use std::fs;", &["std::fs"]),
            ("one segment", "use tokio;", &["tokio"]),
            (
                "a tree",
                "use std::{fs::{self, File}, io as x, net::*};",
                &["std::fs", "std::fs::File", "std::io", "std::net::*"],
            ),
            ("a tree without a root", "use {a::b, ::c::d};", &["a::b", "c::d"]),
            ("a re-export", "pub(crate) use super::x::Y;", &["super::x::Y"]),
            (
                "inline",
                "fn f() -> std::io::Result<()> { crate::x::y::<u8>(1); v.iter().sum::<T>() }",
                &["std::io::Result", "crate::x::y"],
            ),
            ("in a macro", "fn f() { select! { () = tokio::time::sleep(d) => {} } }", &["tokio::time::sleep"]),
            ("a macro's own", "fn f() { tracing::warn!(\"std::fs\"); }", &["tracing::warn"]),
            ("in an attribute", "#[derive(serde::Deserialize)] struct S;", &["serde::Deserialize"]),
            ("qualified", "type T = <u8 as std::str::FromStr>::Err;", &["std::str::FromStr"]),
            ("not in comments", "// std::fs\n/* std::fs */ /// std::fs\nfn f() {}", &[]),
            ("not in strings", "const A: &str = \"std::fs\"; const B: &str = r#\"std::env\"#;", &[]),
            (
                "lifetimes and characters",
                "fn f<'a>(x: &'a str) { let c = '\"'; std::mem::drop(x) }",
                &["std::mem::drop"],
            ),
        ];
        for (case, text, expected) in cases {
            assert_eq!(paths(text), *expected, "{case}");
        }
    }

    #[test]
    fn test_code_is_detected() {
        let text = "use a::a;\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\nuse b::b;\n#[cfg(test)]\nuse c::{d, e};\nuse f::f;";
        assert_eq!(paths(text), ["a::a", "(super::*)", "b::b", "(c::d)", "(c::e)", "f::f"]);
        assert_eq!(parse(text).code_lines(), 3);
        assert_eq!(parse("#[cfg(test)]\nmod tests;\nmod x;").test_modules, ["a::b::tests"]);
        assert_eq!(parse("#[cfg(test)]\npub(super) mod tests;").test_modules, ["a::b::tests"]);
        assert_eq!(parse("#[cfg(all(test, unix))]\nfn f() { x() }\nfn g() {}").code_lines(), 1);
        assert_eq!(parse("#[cfg(unix)]\nfn f() {}").code_lines(), 2);
    }

    #[test]
    fn macros_attributes_and_keywords_are_seen_with_their_place() {
        let text =
            "#![allow(dead_code)]\nfn f() {\n    todo!();\n    if a != (b) {}\n}\nmod m {\n    unsafe fn g() {}\n}";
        let seen: Vec<_> = parse(text).seen.into_iter().map(|s| (s.line, s.module, s.what)).collect();
        let expected = [
            (1, "a::b", What::Attribute("allow(dead_code)".into())),
            (3, "a::b", What::Macro("todo".into())),
            (7, "a::b::m", What::Unsafe),
        ];
        assert_eq!(seen, expected.map(|(line, module, what)| (line, module.to_owned(), what)));
    }

    #[test]
    fn a_header_is_the_first_paragraph() {
        assert_eq!(parse("//! One\n//! two.\n//!\n//! Three.\nfn f() {}").header(), "One two.");
        assert_eq!(parse("// One.\nfn f() {}").header(), "");
        assert_eq!(parse("\n//! One.").header(), "");
    }

    #[test]
    fn invalid_rust_is_an_error() {
        assert!(Source::parse("src/x.rs", "x", "fn f( {").is_err());
    }
}
