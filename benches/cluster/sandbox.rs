//! Isolated network: a namespace with only a loopback interface, and nftables rules that count, drop and cut gossip.
//!
//! The network and process namespaces end with this program, however it ends, with all their processes.

use std::{
    io::Write,
    net::Ipv4Addr,
    process::{Command, ExitCode, Stdio},
};

/// Port of gossip, of Serf too.
pub(crate) const GOSSIP: u16 = 7946;

/// Environment variable that marks the run inside the namespace.
const INSIDE: &str = "--inside";

/// Outside: runs this program again inside, with the same arguments, and returns its exit code. Inside: prepares the
/// network and returns the arguments.
pub(crate) fn enter() -> Result<Vec<String>, ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == INSIDE) {
        arguments.remove(0);
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        nft(RULES);
        return Ok(arguments);
    }
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    // `--pdeathsig` ends the inner process if this one is killed, as `--kill-child` does for `unshare`.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(if root { &[][..] } else { &["--user", "--map-root-user"] })
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .arg(INSIDE)
        .args(&arguments)
        .status();
    match status {
        Ok(status) => Err(ExitCode::from(status.code().map_or(2, |code| code as u8))),
        Err(error) => {
            eprintln!("cannot start unshare (util-linux): {error}");
            Err(ExitCode::from(2))
        }
    }
}

/// Counters are on output, so that lost packets count as sent. Drops are on input, so that the sender gets no error.
const RULES: &str = "
table ip bench { }
delete table ip bench
table ip bench {
  counter over_udp { }
  counter over_tcp { }
  set away {
    type ipv4_addr
  }
  chain sent {
    type filter hook output priority 0
    udp dport 7946 counter name over_udp
    tcp dport 7946 counter name over_tcp
    tcp sport 7946 counter name over_tcp
  }
  chain cut_off {
    type filter hook input priority 0
    ip saddr @away drop
    ip daddr @away drop
  }
  chain losing {
    type filter hook input priority 1
  }
}
";

/// Packet loss of gossip only; ends on drop.
pub(crate) struct Loss(());

impl Loss {
    /// Drops this percentage of packets independently, over UDP and TCP.
    pub(crate) fn begin(percent: u32) -> Self {
        let lose =
            |of: &str| format!("add rule ip bench losing {of} {GOSSIP} numgen random mod 100 < {percent} drop\n");
        nft(&[lose("udp dport"), lose("tcp dport"), lose("tcp sport")].concat());
        Self(())
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        nft("flush chain ip bench losing\n");
    }
}

/// Drops all packets to and from this address.
pub(crate) fn cut(address: Ipv4Addr) {
    nft(&format!("add element ip bench away {{ {address} }}\n"));
}

/// Restores the address.
pub(crate) fn mend(address: Ipv4Addr) {
    nft(&format!("delete element ip bench away {{ {address} }}\n"));
}

/// Returns octets of gossip sent so far, with IP headers: over UDP, and over TCP with acknowledgements.
pub(crate) fn octets() -> (u64, u64) {
    let listed = Command::new("nft").args(["list", "counters"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let of = |name: &str| {
        let (_, rest) = text.split_once(&format!("counter {name} {{")).unwrap();
        let (_, bytes) = rest.split_once("bytes ").unwrap();
        bytes.split_whitespace().next().unwrap().parse().unwrap()
    };
    (of("over_udp"), of("over_tcp"))
}

fn nft(script: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refused: {script}");
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
