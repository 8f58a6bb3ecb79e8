//! Checks of the other files that a configuration names and the agent needs to start: gossip key, tokens, certificates, keys of
//! signed zones, trust anchors.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{Report, signed_zones, texts};
use crate::{
    config::{Config, Seal},
    diagnostic::Diagnostic,
    files::{access, contents::Access, dnssec_keys, read::read, tokens, trust_anchors, tsig_keys},
    model::keyring::Keyring,
    tls::certificate,
};

/// Maximum size of a file with gossip keys in octets: the maximum number of keys, and comments.
const MAX_KEYS: usize = 64 * 1024;

/// Checks each file that the configuration names.
pub(super) fn check(config: &Config, report: &mut Report) {
    if let Seal::KeyFile(path) = &config.gossip.seal
        && is_readable(path, "gossip.key_file", "`muster keygen` generates a key", report)
        && let Ok(text) = super::read(path, MAX_KEYS)
        && let Err(error) = Keyring::parse(&String::from_utf8_lossy(&text.bytes))
    {
        report.problems.push(Diagnostic::whole(path, error.to_string()));
    }
    if let Some(folder) = &config.http.tokens_dir
        && is_readable(folder, "http.tokens_dir", "create the folder, and a file with a token in it", report)
    {
        report.warn_of_ignored(&tokens::folder(folder.clone()));
        let mut any = false;
        for text in texts(folder, Access::Secret, |file| !super::is_zone(file), report) {
            match tokens::parse(&text.path, &text.bytes) {
                Ok(tokens) => any |= !tokens.is_empty(),
                Err(problems) => report.problems.extend(problems),
            }
        }
        if !any {
            let problem =
                Diagnostic::whole(folder, "no file has a valid token: the HTTP API refuses all requests over TCP");
            report.problems.push(problem.as_warning());
        }
    }
    if let Some(folder) = &config.dns.keys_dir
        && is_readable(folder, "dns.keys_dir", "create the folder, and a file in it with `tsig-keygen NAME`", report)
    {
        check_keys(config, folder, report);
    }
    let folder = &config.dns.dnssec_keys_dir;
    if !config.dns.dnssec.is_empty()
        && is_readable(folder, "dns.dnssec_keys_dir", "make a key with `muster dnssec keygen ZONE`", report)
    {
        signed_zones::check_keys(config, &dnssec_keys::folder(folder.clone()), report);
    }
    if let Some(path) = config.resolver.validation.as_ref().and_then(|validation| validation.trust_anchors.as_deref())
        && is_readable(path, "resolver.trust_anchors", "the file has DS or DNSKEY records", report)
        && let Err(error) = trust_anchors::parse(read(path, trust_anchors::MAX_FILE))
    {
        report.problems.push(error.at(path));
    }
    let pairs = config.http.tls.iter().map(|(certificate, key)| ("http", certificate, key));
    let encrypted = config.dns.encrypted.iter().map(|dns| ("dns.encrypted", &dns.certificate, &dns.key));
    for (part, chain, key) in pairs.chain(encrypted) {
        if is_readable(chain, &format!("{part}.certificate"), "the file contains the PEM certificate", report)
            && let Some(weakness) = certificate::weakness(chain)
        {
            let problem = Diagnostic::whole(chain, weakness).with_hint(certificate::SERVER_CERTIFICATE);
            report.problems.push(problem.as_warning());
        }
        is_readable(key, &format!("{part}.key"), "the file contains the PEM key of the certificate", report);
    }
}

/// Checks the files with TSIG keys, and that they have the keys that the configuration names.
fn check_keys(config: &Config, folder: &Path, report: &mut Report) {
    report.warn_of_ignored(&tsig_keys::folder(folder.to_owned()));
    let (mut known, mut is_whole) = (Vec::new(), true);
    let is_open = access::is_open_folder(folder);
    let files = super::folder(folder).unwrap_or_default();
    let is_key = |file: &&PathBuf| super::has_extension(file, "key") || super::has_extension(file, "conf");
    for file in files.iter().filter(is_key) {
        let text = if report.admits(file, Access::Secret, is_open) { report.read(file) } else { None };
        let Some(text) = text else {
            is_whole = false;
            continue;
        };
        match tsig_keys::parse(&text.path, &text.bytes) {
            Ok(keys) => known.extend(keys.iter().map(|key| key.name().clone())),
            Err(problems) => {
                is_whole = false;
                report.problems.extend(problems);
            }
        }
    }
    if is_whole {
        report.problems.extend(tsig_keys::missing(folder, &config.dns.named_keys(), |name| known.contains(name)));
    }
}

/// Reports whether a key of the configuration names a file with a key.
fn is_secret(key: &str) -> bool {
    key.ends_with(".key") || key.ends_with(".key_file")
}

/// Reports whether a file can be opened, and the permissions of secrets. Missing permission is only a warning: the agent's user may read its secrets.
fn is_readable(path: &Path, key: &str, hint: &str, report: &mut Report) -> bool {
    match File::open(path) {
        Ok(_) => {
            if is_secret(key) {
                report.problems.extend(access::exposure(path, Access::Secret).map(|found| found.at(path)));
            }
            true
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let problem = Diagnostic::whole(path, format!("not checked: {error}"));
            report.problems.push(problem.with_hint("run this command as root").as_warning());
            false
        }
        Err(error) => {
            let problem = Diagnostic::whole(path, format!("cannot read `{key}`: {error}"));
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            report.problems.push(if is_missing { problem.with_hint(hint) } else { problem });
            false
        }
    }
}
