//! Import target: any octets of a file of Consul yield a diagnostic with a position, or files that muster accepts.

use std::{net::IpAddr, path::Path};

use muster::{
    config::{Config, Environment},
    files::service_file::{self, Defaults},
    import::{Options, Privacy, Source, Syntax, convert, parse, registration::of_consul},
    model::{host_addresses::HostAddresses, name::Label},
};

use super::problems;

/// Parses a file as JSON or HCL, whichever it resembles, and converts it.
pub fn run(octets: &[u8]) {
    let path = Path::new("fuzz");
    let root = match parse(path, octets, Syntax::of_text(&String::from_utf8_lossy(octets)), 0) {
        Ok(root) => root,
        Err(problem) => return problems::check(&[problem], path, octets),
    };
    let _ = of_consul(&root);
    let source = Source { name: "fuzz".to_owned(), stem: "fuzz".to_owned(), is_public: true, root };
    let converted = convert(&[source], &Options::default());
    for file in &converted.files {
        let text = file.text.as_bytes();
        if file.path == "muster.yaml" {
            let environment = Environment {
                host_name: "host-a".to_owned(),
                addresses: HostAddresses::default(),
                in_use: None,
                runtime_dir: None,
            };
            if let Err(found) = Config::parse([(path, text)], &environment) {
                panic!("{found:?} in {}", file.text);
            }
        } else if file.privacy != Privacy::Secret {
            let node = Label::parse("host-a").unwrap_or_else(|error| panic!("{error}"));
            let addresses = [IpAddr::from([10, 0, 0, 7])];
            let defaults = Defaults { node: &node, addresses: &addresses, allow_exec: true };
            if let Err(found) = service_file::parse(path, text, &defaults) {
                panic!("{found:?} in {}", file.text);
            }
        }
    }
    for finding in &converted.findings {
        assert!(!finding.reason.is_empty() && finding.line <= octets.len() + 1, "{finding:?}");
    }
}
