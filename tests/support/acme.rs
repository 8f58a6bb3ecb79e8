//! pebble, a small certificate authority that speaks ACME, for clients that prove a name by DNS.

use std::{fs, net::SocketAddr, path::Path};

use super::{
    certificates::Authority,
    process,
    program::{Program, free},
    wait,
};

/// Running authority.
pub struct Pebble {
    /// Address of its API.
    pub address: SocketAddr,
    program: Program,
}

impl Pebble {
    /// Starts it with its files in `folder`. It asks this DNS server for challenges.
    pub fn start(folder: &Path, dns: SocketAddr) -> Self {
        let (address, management) = (free(), free());
        Authority::generate().certify(folder, &["localhost"]);
        let path = folder.display();
        let config = format!(
            "{{\"pebble\": {{\"listenAddress\": \"{address}\", \"managementListenAddress\": \"{management}\", \"certificate\": \
             \"{path}/cert.pem\", \"privateKey\": \"{path}/key.pem\", \"httpPort\": 5002, \"tlsPort\": 5001}}}}"
        );
        fs::write(folder.join("pebble.json"), config).unwrap();
        let mut command = process::command("pebble");
        command.args(["-dnsserver", &dns.to_string(), "-config"]).arg(folder.join("pebble.json"));
        // It waits before each check and rejects some requests by chance otherwise.
        command.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")]);
        let program = Program::start(command, folder);
        let pebble = Self { address, program };
        wait::until("pebble listens", || std::net::TcpStream::connect(address).is_ok());
        pebble
    }

    /// Returns the URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// Returns its output so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}
