//! The folder of TSIG keys: files in the form that `tsig-keygen` writes and BIND includes. Diagnostics never show a secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;

use super::{
    contents::{Access, Contents, FileKind, Folder, Limits},
    last_good::{LastGood, LastValidFile, Loaded, Reloadable},
};
use crate::{
    diagnostic::Diagnostic,
    dns::transfer::tsig::{Algorithm, Key, Keys, NamedKey},
    model::name::Name,
    printable,
};

/// Maximum octets of a file: some hundred keys.
const MAX_FILE: usize = 64 * 1024;
/// Shortest secret in octets. RFC 8945 §8 advises as many as the MAC has; older keys of BIND have 16.
const MIN_SECRET: usize = 8;
/// Example in messages.
const EXAMPLE: &str =
    "generate a key with `tsig-keygen NAME`, or write `key \"NAME\" { algorithm hmac-sha256; secret \"BASE64\"; };`";

/// The files of `dns.keys_dir`.
pub fn folder(path: PathBuf) -> Folder {
    Folder {
        path,
        kind: FileKind::Key,
        shared: false,
        access: Access::Secret,
        required: true,
        limits: Limits::for_files_of(MAX_FILE as u64),
    }
}

/// A key as written in a file.
#[derive(Clone)]
pub struct WrittenKey {
    name: Name,
    algorithm: Algorithm,
    secret: Vec<u8>,
}

impl WrittenKey {
    /// Returns the name of the key.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

/// Reads one file.
///
/// # Errors
/// The first problem of the file.
pub fn parse(path: &Path, octets: &[u8]) -> Result<Vec<WrittenKey>, Vec<Diagnostic>> {
    let problem = |line: usize, column: usize, message: String| {
        vec![Diagnostic::at(path, line, column, message).with_hint(EXAMPLE)]
    };
    let text = std::str::from_utf8(octets).map_err(|_| problem(1, 1, "the file is not UTF-8 text".to_owned()))?;
    let tokens =
        tokens(text).map_err(|(line, column)| problem(line, column, "unfinished text or comment".to_owned()))?;
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let mut keys = Vec::new();
    while parser.at < tokens.len() {
        keys.push(parser.key().map_err(|fault| {
            let (line, column) = parser.position();
            problem(line, column, fault.into())
        })?);
    }
    Ok(keys)
}

/// A word, a quoted text or a sign, and its position.
#[derive(Debug, PartialEq, Eq)]
struct Token<'t> {
    text: &'t str,
    line: usize,
    column: usize,
}

/// Splits a text into tokens without comments (`#`, `//`, `/* */`). The error is a position.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, (usize, usize)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let (mut line, mut column) = (1, 1);
    let mut advance = |rest: &mut &'_ str, octets: usize| -> (usize, usize) {
        let before = (line, column);
        for character in rest[..octets].chars() {
            if character == '\n' {
                (line, column) = (line + 1, 1);
            } else {
                column += 1;
            }
        }
        before
    };
    while let Some(first) = rest.chars().next() {
        let is_word = |character: char| !character.is_whitespace() && !matches!(character, '{' | '}' | ';' | '"' | '#');
        let octets = if first.is_whitespace() {
            first.len_utf8()
        } else if first == '#' || rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            match rest.find("*/") {
                Some(end) => end + 2,
                None => return Err(advance(&mut rest, 0)),
            }
        } else {
            let (octets, token) = match first {
                '{' | '}' | ';' => (1, &rest[..1]),
                '"' => match rest[1..].find('"') {
                    Some(end) => (end + 2, &rest[1..=end]),
                    None => return Err(advance(&mut rest, 0)),
                },
                _ => {
                    let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
                    (end, &rest[..end])
                }
            };
            let (line, column) = advance(&mut rest, octets);
            tokens.push(Token { text: token, line, column });
            rest = &rest[octets..];
            continue;
        };
        advance(&mut rest, octets);
        rest = &rest[octets..];
    }
    Ok(tokens)
}

struct Parser<'t> {
    tokens: &'t [Token<'t>],
    at: usize,
}

impl<'t> Parser<'t> {
    /// Position of the token that was read last.
    fn position(&self) -> (usize, usize) {
        let at = self.at.saturating_sub(1).min(self.tokens.len().saturating_sub(1));
        self.tokens.get(at).map_or((1, 1), |token| (token.line, token.column))
    }

    fn next(&mut self) -> Result<&'t str, &'static str> {
        let token = self.tokens.get(self.at).ok_or("the file ends within a key")?;
        self.at += 1;
        Ok(token.text)
    }

    fn expect(&mut self, text: &str, fault: &'static str) -> Result<(), &'static str> {
        if self.next()?.eq_ignore_ascii_case(text) { Ok(()) } else { Err(fault) }
    }

    fn key(&mut self) -> Result<WrittenKey, &'static str> {
        self.expect("key", "expected `key`")?;
        let name = Name::parse(self.next()?).map_err(|_| "the name of the key is no domain name")?;
        self.expect("{", "expected `{` behind the name of the key")?;
        let (mut algorithm, mut secret) = (None, None);
        loop {
            match self.next()? {
                word if word.eq_ignore_ascii_case("algorithm") => {
                    let known = Algorithm::parse(self.next()?);
                    algorithm = Some(known.ok_or("unknown algorithm: use hmac-sha256, hmac-sha384 or hmac-sha512")?);
                }
                word if word.eq_ignore_ascii_case("secret") => {
                    let octets = BASE64.decode(self.next()?.as_bytes()).map_err(|_| "the secret is not base64")?;
                    if octets.len() < MIN_SECRET {
                        return Err("the secret has fewer than 8 octets");
                    }
                    secret = Some(octets);
                }
                "}" => break,
                _ => return Err("expected `algorithm`, `secret` or `}`"),
            }
            self.expect(";", "expected `;`")?;
        }
        self.expect(";", "expected `;` behind the key")?;
        let algorithm = algorithm.ok_or("the key has no `algorithm`")?;
        Ok(WrittenKey { name, algorithm, secret: secret.ok_or("the key has no `secret`")? })
    }
}

/// Reports the keys that the configuration names and no file has.
pub fn missing(folder: &Path, named: &BTreeSet<NamedKey>, is_known: impl Fn(&Name) -> bool) -> Vec<Diagnostic> {
    let problem = |NamedKey { name, by }: &NamedKey| {
        let problem = Diagnostic::whole(folder, format!("no file has the TSIG key `{name}`, which `{by}` names"));
        problem.with_hint(format!("run `tsig-keygen {name} > {name}key` in the folder"))
    };
    named.iter().filter(|key| !is_known(&key.name)).map(problem).collect()
}

/// Parser of the folder.
pub struct TsigFiles {
    files: LastGood<Vec<WrittenKey>>,
    folder: PathBuf,
    named: BTreeSet<NamedKey>,
}

impl TsigFiles {
    /// Returns a parser that reports keys of the configuration that are in no file.
    pub fn new(folder: PathBuf, named: BTreeSet<NamedKey>) -> Self {
        Self { files: LastGood::default(), folder, named }
    }
}

impl Reloadable for TsigFiles {
    type Value = Keys;

    fn restore(&mut self, former: Vec<LastValidFile>) {
        self.files.restore(former);
    }

    fn load(&mut self, contents: &Contents) -> Loaded<Keys> {
        self.files.update(contents, parse);
        let mut problems: Vec<Diagnostic> = self.files.problems().cloned().collect();
        let mut named: BTreeMap<Name, &Path> = BTreeMap::new();
        let mut keys = Vec::new();
        for (path, file) in self.files.values() {
            for WrittenKey { name, algorithm, secret } in file.iter() {
                if let Some(first) = named.get(name) {
                    let text = format!("TSIG key `{name}` is also defined in {}", printable::path(first));
                    problems.push(Diagnostic::whole(path, text).with_hint("the first definition is used").as_warning());
                    continue;
                }
                named.insert(name.clone(), path);
                keys.push(Key::new(name.clone(), *algorithm, secret));
            }
        }
        // An invalid file may have the key.
        if problems.is_empty() {
            problems = missing(&self.folder, &self.named, |name| named.contains_key(name));
        }
        problems.extend(self.files.consequences());
        let summary = format!("{} TSIG key{}", keys.len(), if keys.len() == 1 { "" } else { "s" });
        let last_valid = self.files.last_valid();
        Loaded { value: keys.into_iter().collect(), summary, problems, last_valid }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn keys_are_read_as_tsig_keygen_writes_them() {
        let text = "# for the secondaries\nkey \"XFR.example.\" {\n\talgorithm HMAC-SHA256;\n\tsecret \"c2VjcmV0IHNlY3JldA==\";\n};\n\
                    key b { secret c2VjcmV0IHNlY3JldA==; algorithm hmac-sha512; }; // one line\n/* none\n */";
        let keys = parse(Path::new("k"), text.as_bytes()).ok().unwrap();
        let seen: Vec<_> = keys.iter().map(|key| (key.name.to_string(), key.algorithm, &key.secret[..])).collect();
        assert_eq!(
            seen,
            [
                ("xfr.example.".to_owned(), Algorithm::Sha256, &b"secret secret"[..]),
                ("b.".to_owned(), Algorithm::Sha512, &b"secret secret"[..]),
            ]
        );
        assert!(parse(Path::new("k"), b"# nothing").ok().unwrap().is_empty());
    }

    #[test]
    fn faults_are_reported_with_their_position_and_without_the_secret() {
        let cases = [
            ("server a {};", "k:1:1: expected `key`"),
            ("key a\n { algorithm hmac-md5; };", "k:2:14: unknown algorithm"),
            ("key a { secret \"topsecret\"; };", "k:1:16: the secret is not base64"),
            ("key a { secret \"c2VjcmV0\"; };", "k:1:16: the secret has fewer than 8 octets"),
            ("key a { algorithm hmac-sha256; };", "k:1:33: the key has no `secret`"),
            ("key a { secret \"c2VjcmV0IHNlY3JldA==\"; };", "k:1:41: the key has no `algorithm`"),
            ("key a {", "k:1:7: the file ends within a key"),
            ("key a { secret \"topsecret", "k:1:16: unfinished text"),
            ("key a..b {};", "k:1:5: the name of the key is no domain name"),
            ("/* open", "k:1:1: unfinished text or comment"),
            ("key a { topsecret; };", "k:1:9: expected `algorithm`, `secret` or `}`"),
        ];
        for (text, expected) in cases {
            let problems = parse(Path::new("k"), text.as_bytes()).err().unwrap();
            let shown = problems[0].to_string();
            assert!(shown.starts_with(expected), "{text}: {shown}");
            assert!(!shown.contains("topsecret") && !shown.contains("c2Vj"), "{shown}");
        }
    }

    #[test]
    fn key_that_the_configuration_names_must_be_in_a_file() {
        let named = ["a", "b"].map(|name| NamedKey { name: Name::parse(name).unwrap(), by: "dns.dynamic" });
        let loaded = |text: &str| {
            let mut contents = Contents::empty(Path::new("tsig"));
            contents.files.insert("tsig/keys.conf".into(), Arc::new(Ok(text.as_bytes().into())));
            let problems = TsigFiles::new("tsig".into(), named.clone().into()).load(&contents).problems;
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let key = |name: &str| format!("key {name} {{ algorithm hmac-sha256; secret c2VjcmV0IHNlY3JldA==; }};");
        assert_eq!(loaded(&[key("a"), key("b")].concat()), <[&str; 0]>::default());
        let missing = "tsig:1:1: no file has the TSIG key `b.`, which `dns.dynamic` names (run `tsig-keygen b. > b.key` in the folder)";
        assert_eq!(loaded(&key("a")), [missing]);
        assert!(
            !loaded("key b {").iter().any(|problem| problem.contains("no file")),
            "the invalid file may have the key"
        );
    }
}
