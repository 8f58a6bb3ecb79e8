//! The files beside services and zones that a configuration names, and without which the agent would not start as it should:
//! the key of gossip, tokens, certificates.

use std::{fs::File, io, path::Path};

use super::{Report, texts};
use crate::{
    config::{Config, Seal},
    diagnostic::Diagnostic,
    files::tokens,
    model::keyring::Keyring,
};

/// Octets of a file with gossip keys: all that may be, and comments.
const MAX_KEYS: usize = 64 * 1024;

/// Looks at each of them.
pub(super) fn check(config: &Config, report: &mut Report) {
    if let Seal::KeyFile(path) = &config.gossip.seal
        && is_there(path, "gossip.key_file", "`muster keygen` makes a key", report)
        && let Ok(text) = super::read(path, MAX_KEYS)
        && let Err(error) = Keyring::parse(&String::from_utf8_lossy(&text.bytes))
    {
        report.problems.push(Diagnostic::whole(path, error.to_string()).with_hint("`muster keygen` makes a key"));
    }
    if let Some(folder) = &config.http.tokens_dir
        && is_there(folder, "http.tokens_dir", "make the folder, and a file with a token in it", report)
    {
        report.ignored(&tokens::folder(folder.clone()));
        let mut any = false;
        for text in texts(folder, |file| !super::is_zone(file), report) {
            match tokens::parse(&text.path, &text.bytes) {
                Ok(tokens) => any |= !tokens.is_empty(),
                Err(problems) => report.problems.extend(problems),
            }
        }
        if !any {
            let problem = Diagnostic::whole(folder, "no token is good for the HTTP API: nobody can use it over TCP");
            report.problems.push(problem.as_warning());
        }
    }
    let pairs = config.http.tls.iter().map(|(certificate, key)| ("http", certificate, key));
    let encrypted = config.dns.encrypted.iter().map(|dns| ("dns.encrypted", &dns.certificate, &dns.key));
    for (part, certificate, key) in pairs.chain(encrypted) {
        is_there(certificate, &format!("{part}.certificate"), "it holds the certificate, in PEM", report);
        is_there(key, &format!("{part}.key"), "it holds the certificate's key, in PEM", report);
    }
}

/// Whether it can be opened. Whoever may not is not told that it is missing: secrets are the agent's to read.
fn is_there(path: &Path, named: &str, hint: &str, report: &mut Report) -> bool {
    match File::open(path) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let problem = Diagnostic::whole(path, format!("not looked at, since you may not read it: {error}"));
            report.problems.push(problem.with_hint("run this as root").as_warning());
            false
        }
        Err(error) => {
            let problem = Diagnostic::whole(path, format!("`{named}` names it, and it cannot be read: {error}"));
            report.problems.push(problem.with_hint(hint));
            false
        }
    }
}
