//! The API token of a request: from a file or from the variable `MUSTER_HTTP_TOKEN`.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
};

use hyper::header::HeaderValue;

use super::input_files::read;

/// Maximum size of a token file in octets.
const MAX_TOKEN: usize = 4096;
/// Environment variable with the token for muster, used without --token-file.
pub(super) const VARIABLE: &str = "MUSTER_HTTP_TOKEN";

/// Source of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `--token-file`
    File(PathBuf),
    /// An environment variable, such as `MUSTER_HTTP_TOKEN`
    Variable(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the token file {}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Invalid token. Messages never contain the token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(Source, io::Error),
    /// The source contains only white space.
    #[error("{0} is empty: it must contain a token")]
    Empty(Source),
    /// The token has several lines; the number is their count.
    #[error("{0} has {1} lines: a token is one line")]
    Lines(Source, usize),
    /// The token is longer than [`MAX_TOKEN`] octets.
    #[error("{0} has more than {MAX_TOKEN} octets: a token is shorter")]
    TooLong(Source),
    /// The token contains characters that are invalid in an HTTP header.
    #[error("{0} contains unprintable characters: a token has none")]
    Unprintable(Source),
}

/// Reads the token from the file; without a file, from the variable, which may be unset or empty.
pub(super) fn token(file: Option<&Path>, variable: &'static str) -> Result<Option<HeaderValue>, TokenError> {
    let (text, source) = match file {
        Some(path) => {
            let source = Source::File(path.to_owned());
            match read(path, MAX_TOKEN) {
                Ok(text) => (text.bytes, source),
                Err(error) => return Err(TokenError::Unreadable(source, error)),
            }
        }
        None => (env::var_os(variable).unwrap_or_default().into_encoded_bytes(), Source::Variable(variable)),
    };
    if text.trim_ascii().is_empty() && file.is_none() {
        return Ok(None);
    }
    parse(&text, source).map(Some)
}

fn parse(text: &[u8], source: Source) -> Result<HeaderValue, TokenError> {
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err(TokenError::Empty(source));
    }
    if text.len() > MAX_TOKEN {
        return Err(TokenError::TooLong(source));
    }
    let lines = token.split(|b| *b == b'\n').count();
    if lines > 1 {
        return Err(TokenError::Lines(source, lines));
    }
    let mut token = HeaderValue::from_bytes(token).map_err(|_| TokenError::Unprintable(source))?;
    token.set_sensitive(true);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_is_one_line_and_errors_do_not_contain_it() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(MAX_TOKEN + 1);
        let files = [
            ("good", "secret-token\n"),
            ("spaces", "  secret-token \r\n\n"),
            ("empty", " \n"),
            ("lines", "tokens:\n- {name: a, token: secret-token}\n"),
            ("control", "secret\u{7}token\n"),
            ("long", &long),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let cases = [
            ("good", Ok("secret-token")),
            ("spaces", Ok("secret-token")),
            ("nosuch", Err("cannot read the token file PATH: No such file or directory (os error 2)")),
            (".", Err("cannot read the token file PATH: not a regular file")),
            ("empty", Err("the token file PATH is empty: it must contain a token")),
            ("lines", Err("the token file PATH has 2 lines: a token is one line")),
            ("control", Err("the token file PATH contains unprintable characters: a token has none")),
            ("long", Err("the token file PATH has more than 4096 octets: a token is shorter")),
        ];
        for (name, expected) in cases {
            let path = folder.path().join(name);
            let got = token(Some(&path), VARIABLE).map_err(|error| error.to_string());
            let expected = expected.map_err(|text| text.replace("PATH", &path.display().to_string()));
            let got = got.map(|token| token.map(|token| token.to_str().unwrap().to_owned()));
            assert_eq!(got, expected.map(|token| Some(token.to_owned())), "{name}");
        }
    }
}
