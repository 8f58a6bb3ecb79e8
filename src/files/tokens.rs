//! The tokens folder: files with the tokens of the HTTP API.
//!
//! A file has the key `tokens` with a list of tables of `name`, `token`, and `scope` or `keys`. Diagnostics never show a token.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    contents::{Access, Contents, FileKind, Folder, Limits},
    last_good::{LastGood, LastValidFile, Loaded, Reloadable},
};
use crate::{
    diagnostic::Diagnostic,
    model::token::{KeyAccess, KeyGrant, MAX_TOKEN, MIN_TOKEN, Permissions, Scope, Token, Tokens},
    printable,
    yaml::{
        Document,
        reader::Reader,
        tree::{Node, Value},
    },
};

/// Maximum octets of a file: some thousand tokens.
const MAX_FILE: usize = 256 * 1024;
/// Keys of a file.
const FILE_KEYS: &[&str] = &["tokens"];
/// Keys of a token.
const TOKEN_KEYS: &[&str] = &["name", "scope", "keys", "token"];
/// Keys of the access to keys of the store.
const GRANT_KEYS: &[&str] = &["prefix", "access"];
/// Most prefixes of a token: all of them are compared at each request.
const MAX_GRANTS: usize = 64;

/// The files of `http.tokens_dir`.
pub fn folder(path: PathBuf) -> Folder {
    Folder {
        path,
        kind: FileKind::Yaml,
        shared: false,
        access: Access::Secret,
        required: true,
        limits: Limits::for_files_of(MAX_FILE as u64),
    }
}

/// Reads one file.
///
/// # Errors
/// All problems of the file.
pub fn parse(path: &Path, octets: &[u8]) -> Result<Vec<Token>, Vec<Diagnostic>> {
    let document = Document::read(path, octets, 0).map_err(|problem| vec![problem])?;
    let reader = Reader::of_secrets(std::slice::from_ref(&document));
    let tokens = read_all(&reader, document.root());
    reader.finish(Some(tokens)).map(|(tokens, _)| tokens)
}

fn read_all(reader: &Reader<'_, '_>, root: &Node<'_>) -> Vec<Token> {
    // A bare text may be a token, which `table` would print.
    if !matches!(root.value, Value::Table(_) | Value::Null) {
        reader.error(root.id, "expected a file with `tokens`");
        return Vec::new();
    }
    let Some(table) = reader.table(root, "a file with `tokens`", FILE_KEYS) else { return Vec::new() };
    match table.get("tokens").map(|node| (node, &node.value)) {
        None => {
            // A key without a value may be a half-written file and revokes nothing. An empty list revokes all.
            reader.required(&table, "tokens", "tokens: []");
            Vec::new()
        }
        Some((_, Value::List(items))) => items.iter().filter_map(|item| read_token(reader, item)).collect(),
        Some((node, _)) => {
            // `mismatch` would print the value.
            reader.error(node.id, "expected a list of tables with `name`, `token`, and `scope` or `keys`");
            Vec::new()
        }
    }
}

fn read_token(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Token> {
    if !matches!(node.value, Value::Table(_)) {
        reader.error(node.id, "expected a table with `name`, `token`, and `scope` or `keys`");
        return None;
    }
    let table = reader.table(node, "a token", TOKEN_KEYS)?;
    let scopes = Scope::ALL.map(|scope| (scope.as_str(), scope));
    let name = table.get("name").and_then(|node| reader.line(node, "a name"));
    let scope = table.get("scope").and_then(|node| reader.word(node, &scopes));
    let token = table.get("token").and_then(|node| {
        // Numbers are read as written. Lists and tables are not printed: they may hold a secret.
        let is_scalar = !matches!(node.value, Value::List(_) | Value::Table(_));
        let token = if is_scalar { reader.text(node, "a token") } else { None };
        let token = token.filter(|token| is_token(token));
        if token.is_none() {
            let what = format!("a token has {MIN_TOKEN} to {MAX_TOKEN} printable characters and no spaces");
            reader.error_with_hint(node.id, what, "generate one with `openssl rand -hex 32`");
        }
        token
    });
    for key in ["name", "token"].iter().filter(|key| table.get(key).is_none()) {
        reader.error(node.id, format!("the token has no `{key}`"));
    }
    let keys = match table.get("keys") {
        None if scope.is_none() => {
            if table.get("scope").is_none() {
                reader.error(node.id, "the token has no `scope` and no `keys`: it permits nothing");
            }
            return None;
        }
        None => Vec::new(),
        Some(node) => read_grants(reader, node)?,
    };
    // A scope that cannot be read is reported.
    if table.get("scope").is_some() && scope.is_none() {
        return None;
    }
    Some(Token::new(&name?, Permissions { scope, keys }, &token?))
}

/// Reads the access to keys of the store.
fn read_grants(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Vec<KeyGrant>> {
    match &node.value {
        Value::List(items) if (1..=MAX_GRANTS).contains(&items.len()) => {
            items.iter().map(|item| read_grant(reader, item)).collect()
        }
        _ => {
            reader.error_with_hint(
                node.id,
                format!("expected a list of 1 to {MAX_GRANTS} tables with `prefix` and `access`"),
                "write `keys: [{prefix: app/, access: read}]`",
            );
            None
        }
    }
}

fn read_grant(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<KeyGrant> {
    if !matches!(node.value, Value::Table(_)) {
        reader.error(node.id, "expected a table with `prefix` and `access`");
        return None;
    }
    let table = reader.table(node, "access to keys", GRANT_KEYS)?;
    let accesses = KeyAccess::ALL.map(|access| (access.as_str(), access));
    let prefix = table.get("prefix").and_then(|node| reader.text(node, "a prefix of keys"));
    let access = table.get("access").and_then(|node| reader.word(node, &accesses));
    for key in GRANT_KEYS.iter().filter(|key| table.get(key).is_none()) {
        reader.error(node.id, format!("the access to keys has no `{key}`"));
    }
    Some(KeyGrant::new(&prefix?, access?))
}

fn is_token(text: &str) -> bool {
    (MIN_TOKEN..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Parser of the tokens folder.
#[derive(Default)]
pub struct TokenFiles {
    files: LastGood<Vec<Token>>,
}

impl Reloadable for TokenFiles {
    type Value = Tokens;

    fn restore(&mut self, former: Vec<LastValidFile>) {
        self.files.restore(former);
    }

    fn load(&mut self, contents: &Contents) -> Loaded<Tokens> {
        self.files.update(contents, parse);
        let mut problems: Vec<Diagnostic> = self.files.problems().cloned().collect();
        let mut named: BTreeMap<String, &Path> = BTreeMap::new();
        let mut tokens = Vec::new();
        for (path, file) in self.files.values() {
            for token in file.iter() {
                if let Some(first) = named.insert(token.name.clone(), path) {
                    let text = format!("the token {} is also defined in {}", token.name, printable::path(first));
                    problems
                        .push(Diagnostic::whole(path, text).with_hint("give each token a unique name").as_warning());
                }
                tokens.push(token.clone());
            }
        }
        problems.extend(self.files.consequences());
        let summary = format!("{} token{}", tokens.len(), if tokens.len() == 1 { "" } else { "s" });
        let last_valid = self.files.last_valid();
        Loaded { value: Tokens::new(tokens), summary, problems, last_valid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::key::KeyRange;

    #[test]
    fn diagnostics_do_not_show_tokens() {
        let read = |text: &str| {
            parse(Path::new("t"), text.as_bytes())
                .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        };
        let good = "tokens:\n- {name: a, scope: read, token: 0123456789abcdefg}\n- {name: b, scope: operate, token: \"01234567890123456789\"}\n";
        let tokens = Tokens::new(read(good).unwrap());
        assert_eq!(tokens.find(b"0123456789abcdefg").and_then(|token| token.permissions.scope), Some(Scope::Read));
        assert_eq!(
            tokens.find(b"01234567890123456789").and_then(|token| token.permissions.scope),
            Some(Scope::Operate)
        );
        // A token of digits keeps its written form.
        for token in ["12345678901234567", "00012345678901234", "0x123456789abcdef0", "1234567890123456.70"] {
            let tokens = read(&format!("tokens: [{{name: a, scope: read, token: {token}}}]")).unwrap();
            assert!(Tokens::new(tokens).find(token.as_bytes()).is_some(), "{token}");
        }
        assert!(read("tokens: []").unwrap().is_empty());
        let cases = [
            ("", "t:1:1: expected a file with `tokens`, found nothing"),
            ("# nothing\n---\n", "found nothing"),
            ("tokens:\n", "t:1:1: `tokens` is missing"),
            ("{}", "t:1:1: `tokens` is missing"),
            ("secretsecretsecret", "t:1:1: expected a file with `tokens`"),
            ("- secretsecretsecret", "t:1:1: expected a file with `tokens`"),
            ("tokens: [secretsecretsecret]", "t:1:10: expected a table"),
            ("tokens: secretsecretsecret", "t:1:9: expected a list"),
            ("tokens: [{name: a, scope: read}]", "the token has no `token`"),
            ("tokens: [{name: a, scope: all, token: secretsecretsecret}]", "expected `read`, `register` or `operate`"),
            ("tokens: [{name: a, scope: read, token: secret}]", "a token has 16"),
            ("tokens: [{name: a, scope: read, token: [secretsecretsecret]}]", "a token has 16"),
            ("token: [secretsecretsecret]", "unknown key of 5 characters (did you mean `tokens`?)"),
            ("tokens: [{secretsecretsecret: read}]", "unknown key of 18 characters"),
            ("secretsecretsecret: 1\nsecretsecretsecret: 2", "duplicate key of 18 characters"),
            ("tokens: [{name: a, scope: secretsecret, token: 0123456789abcdefg}]", "found a text of 12 characters"),
            ("tokens: [{name: a, token: secretsecretsecret}]", "the token has no `scope` and no `keys`"),
            ("tokens: [{name: a, keys: [], token: secretsecretsecret}]", "expected a list of 1 to 64 tables"),
            ("tokens: [{name: a, keys: [secretsecret], token: secretsecretsecret}]", "expected a table with `prefix`"),
            ("tokens: [{name: a, keys: [{prefix: a/}], token: secretsecretsecret}]", "access to keys has no `access`"),
            (
                "tokens: [{name: a, keys: [{access: read}], token: secretsecretsecret}]",
                "access to keys has no `prefix`",
            ),
            (
                "tokens: [{name: a, keys: [{prefix: a/, access: all}], token: secretsecretsecret}]",
                "expected `read` or `write`",
            ),
            ("tokens: [{name: [a], scope: read, token: 0123456789abcdefg}]", "expected a name, found a list"),
        ];
        for (text, expected) in cases {
            let problems = read(text).expect_err(text);
            assert!(problems.contains(expected) && !problems.contains("secret"), "{text}: {problems}");
        }
    }

    #[test]
    fn token_has_a_scope_or_keys_or_both() {
        let token = "token: 0123456789abcdefg";
        let cases = [
            ("scope: read", Some(Scope::Read), false),
            ("keys: [{prefix: app/, access: write}]", None, true),
            ("scope: register, keys: [{prefix: \"\", access: write}]", Some(Scope::Register), true),
        ];
        for (permissions, scope, may_write) in cases {
            let text = format!("tokens: [{{name: a, {permissions}, {token}}}]");
            let tokens = parse(Path::new("t"), text.as_bytes()).unwrap();
            let range = KeyRange::prefix("app/");
            assert_eq!(tokens[0].permissions.scope, scope, "{permissions}");
            let mut prefixes = tokens[0].permissions.prefixes(KeyAccess::Write);
            let found = prefixes.any(|prefix| KeyRange::prefix(prefix.to_owned()).includes(&range));
            assert_eq!(found, may_write, "{permissions}");
        }
    }
}
