//! Data of all servers, in the form that each of them reads, and the queries.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
};

/// Instances of each service.
pub(crate) const INSTANCES: usize = 3;
/// Number of distinct queries; the load generator repeats them.
const QUERIES: usize = 100_000;
/// Percentage of queries for names that do not exist.
const MISSING: usize = 5;
/// Entries per service file: below the limit of one megabyte per file.
const PER_FILE: usize = 3_000;

/// Services of three instances each, with queries: half SRV, half A, some for names that do not exist. Or names of an
/// upstream, with A queries, some for names that do not exist.
pub(crate) struct World {
    services: usize,
    upstream: Option<SocketAddr>,
    questions: Vec<(String, u16)>,
}

impl World {
    /// Creates data of this number of services; deterministic.
    pub(crate) fn of_services(services: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(services as u64);
        let mut question = || {
            let service = random.usize(..services);
            if random.usize(..100) < MISSING {
                return (format!("x{service:05}.service.local"), 1);
            }
            match random.bool() {
                true => (format!("_s{service:05}._tcp.service.local"), 33),
                false => (format!("s{service:05}.service.local"), 1),
            }
        };
        let questions = (0..QUERIES).map(|_| question()).collect();
        Self { services, upstream: None, questions }
    }

    /// Creates queries for this number of names of the upstream.
    pub(crate) fn forwarded(names: usize, upstream: SocketAddr) -> Self {
        let mut random = fastrand::Rng::with_seed(names as u64);
        let mut question = || {
            let name = random.usize(..names);
            let kind = if random.usize(..100) < MISSING { "x" } else { "www" };
            (format!("{kind}.n{name:05}.example.org"), 1)
        };
        Self { services: 0, upstream: Some(upstream), questions: (0..QUERIES).map(|_| question()).collect() }
    }

    /// Returns the upstream of the names, if they are not in a zone.
    pub(crate) fn upstream(&self) -> Option<SocketAddr> {
        self.upstream
    }

    /// Returns the address of an instance.
    fn address(service: usize, instance: usize) -> String {
        let number = service * INSTANCES + instance;
        format!("10.{}.{}.{}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff)
    }

    /// Returns service files, each with part of the services.
    pub(crate) fn service_files(&self) -> Vec<String> {
        let services: Vec<usize> = (0..self.services).collect();
        let file = |services: &[usize]| {
            let mut text = "services:\n".to_owned();
            for service in services {
                for instance in 0..INSTANCES {
                    let address = Self::address(*service, instance);
                    writeln!(text, "- {{service: s{service:05}, id: i{instance}, address: {address}, port: 8080}}")
                        .unwrap();
                }
            }
            text
        };
        services.chunks(PER_FILE).map(file).collect()
    }

    /// Returns the equivalent zone file.
    pub(crate) fn zone(&self) -> String {
        let mut zone = "$ORIGIN service.local.\n$TTL 5\n@ SOA n1.node hostmaster 1 60 10 604800 1\n@ NS n1.node\n\
                        n1.node A 127.0.0.1\n"
            .to_owned();
        for service in 0..self.services {
            for instance in 0..INSTANCES {
                let address = Self::address(service, instance);
                let target = format!("i{instance}.s{service:05}");
                writeln!(zone, "s{service:05} A {address}\n{target} A {address}").unwrap();
                for owner in [format!("s{service:05}"), format!("_s{service:05}._tcp"), target.clone()] {
                    writeln!(zone, "{owner} SRV 1 10 8080 {target}").unwrap();
                }
            }
        }
        zone
    }

    /// Returns one line per query.
    pub(crate) fn for_dnsperf(&self) -> String {
        let line = |(name, qtype): &(String, u16)| format!("{name} {}\n", if *qtype == 1 { "A" } else { "SRV" });
        self.questions.iter().map(line).collect()
    }

    /// Returns each query as a packet with EDNS, as dnsperf sends it.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        let packet = |(name, qtype): &(String, u16)| {
            let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            for label in name.split('.') {
                packet.push(label.len() as u8);
                packet.extend(label.bytes());
            }
            packet.push(0);
            packet.extend(qtype.to_be_bytes());
            packet.extend([0, 1]);
            packet.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
            packet
        };
        self.questions.iter().map(packet).collect()
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upstream {
            Some(_) => f.write_str("forwarded names, from the cache"),
            None => write!(f, "{} services of {INSTANCES} instances", self.services),
        }
    }
}
