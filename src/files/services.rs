//! The services folder and the instances that its files define.

use std::net::IpAddr;

use super::{
    contents::{Access, Contents, FileKind, Folder, Limits},
    definitions,
    last_good::{LastGood, LastValidFile, Loaded, Reloadable},
    service_file::{self, Defaults, MAX_FILE, ServiceFile},
};
use crate::model::{name::Label, service::Definitions};

/// The files of `services_dir`. With `allow_exec` they may run commands.
pub fn folder(path: std::path::PathBuf, allow_exec: bool) -> Folder {
    Folder {
        path,
        kind: FileKind::Yaml,
        shared: false,
        access: if allow_exec { Access::Trusted } else { Access::Content },
        required: true,
        limits: Limits::for_files_of(MAX_FILE as u64),
    }
}

/// Parser of the services folder.
pub struct Services {
    node: Label,
    addresses: Vec<IpAddr>,
    allow_exec: bool,
    files: LastGood<ServiceFile>,
}

impl Services {
    /// Creates a parser without files. The arguments are the defaults of the node.
    pub fn new(node: Label, addresses: Vec<IpAddr>, allow_exec: bool) -> Self {
        Self { node, addresses, allow_exec, files: LastGood::new() }
    }
}

impl Reloadable for Services {
    type Value = Definitions;

    fn restore(&mut self, former: Vec<LastValidFile>) {
        self.files.restore(former);
    }

    fn load(&mut self, contents: &Contents) -> Loaded<Definitions> {
        let defaults = Defaults { node: &self.node, addresses: &self.addresses, allow_exec: self.allow_exec };
        self.files.update(contents, |path, octets| service_file::parse(path, octets, &defaults));
        let entries = self.files.values().map(|(path, file)| (path, file.entries.as_slice()));
        let (value, across) = definitions::merge(entries);
        let warnings = self.files.values().flat_map(|(_, file)| &file.warnings);
        let problems =
            self.files.problems().chain(warnings).cloned().chain(across).chain(self.files.consequences()).collect();
        let summary = format!("{} instance{}", value.len(), if value.len() == 1 { "" } else { "s" });
        let last_valid = self.files.last_valid();
        Loaded { value, summary, problems, last_valid }
    }
}
