//! Clusters of muster and etcd on loopback, each with its data below one folder.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use muster::etcd::proto::etcdserverpb::{PutRequest, PutResponse};

use crate::grpc::Client;

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// muster.
    Muster,
    /// etcd.
    Etcd,
}

/// A running cluster; ends when it is dropped.
pub(crate) struct Servers {
    children: Vec<Child>,
    /// Addresses for clients.
    pub(crate) clients: Vec<SocketAddr>,
}

impl Servers {
    /// Starts a cluster and waits until it takes writes.
    pub(crate) async fn start(kind: Kind, members: usize, folder: &Path) -> Self {
        let folder = folder.join(format!("{kind:?}-{members}-{}", fastrand::u32(..)));
        let ports: Vec<[u16; 4]> = (0..members).map(|_| std::array::from_fn(|_| free_port())).collect();
        let mut children = Vec::new();
        for at in 0..members {
            let folder = folder.join(at.to_string());
            fs::create_dir_all(&folder).unwrap();
            let mut command = match kind {
                Kind::Muster => muster(at, &ports, &folder),
                Kind::Etcd => etcd(at, &ports, &folder),
            };
            let log = fs::File::create(folder.join("output")).unwrap();
            children.push(command.stdout(Stdio::null()).stderr(log).spawn().expect("the program"));
        }
        let clients: Vec<_> = ports.iter().map(|ports| address(ports[0])).collect();
        for client in &clients {
            wait_until_ready(*client).await;
        }
        Self { children, clients }
    }

    /// Resident memory of all members, in MiB.
    pub(crate) fn resident(&self) -> u64 {
        let pages = |child: &Child| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        self.children.iter().map(pages).sum::<u64>() / 1024
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn muster(at: usize, ports: &[[u16; 4]], folder: &Path) -> Command {
    let names: Vec<_> = (0..ports.len()).map(|at| format!("host-{at}")).collect();
    let join: Vec<_> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports[1])).collect();
    let [client, gossip, http, dns] = ports[at];
    let text = format!(
        "node: host-{at}\nadvertise: 127.0.0.1\ndata_dir: {data}\nservices_dir: {data}/services\nzones_dir: {data}/zones\n\
         dns: {{listen: [127.0.0.1:{dns}]}}\nhttp: {{listen: [127.0.0.1:{http}]}}\n\
         gossip: {{listen: 127.0.0.1:{gossip}, join: [{join}]}}\n\
         store: {{voters: [{names}], etcd: {{listen: [127.0.0.1:{client}]}}}}\n",
        data = folder.display(),
        join = join.join(", "),
        names = names.join(", "),
    );
    for name in ["services", "zones"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let path = folder.join("muster.yaml");
    fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.arg("agent").arg("--config").arg(path);
    command
}

fn etcd(at: usize, ports: &[[u16; 4]], folder: &Path) -> Command {
    let cluster: Vec<_> =
        ports.iter().enumerate().map(|(at, ports)| format!("m{at}=http://127.0.0.1:{}", ports[1])).collect();
    let [client, peer, ..] = ports[at];
    let mut command = Command::new("etcd");
    command
        .args(["--name", &format!("m{at}"), "--data-dir"])
        .arg(folder.join("data"))
        .args(["--listen-client-urls", &format!("http://127.0.0.1:{client}")])
        .args(["--advertise-client-urls", &format!("http://127.0.0.1:{client}")])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--initial-cluster", &cluster.join(","), "--logger", "zap", "--log-level", "error"]);
    command
}

async fn wait_until_ready(client: SocketAddr) {
    for _ in 0..600 {
        if let Some(client) = Client::connect(client).await {
            let put = PutRequest { key: "ready".into(), value: "yes".into(), ..PutRequest::default() };
            let put = client.call::<PutResponse>("/etcdserverpb.KV/Put", &put);
            if matches!(tokio::time::timeout(Duration::from_secs(2), put).await, Ok(Some(_))) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{client} is not ready after a minute");
}
