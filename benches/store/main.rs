//! Cost of the store beside etcd, on the same disk in the same run: writes and reads a second with their latency, one member
//! and three, 1 to 256 clients; watchers; memory of 100,000 keys. Both are asked over gRPC by the same client.
//!
//! Run as `cargo bench --bench store`. etcd must be on PATH (Debian: etcd-server). Compare figures of one run only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on ends")]

mod grpc;
mod load;
mod servers;

use std::{
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

use load::{Figures, Load, Operation};
use servers::{Kind, Servers};

/// Duration of one measurement.
const SPAN: Duration = Duration::from_secs(4);
/// Numbers of clients.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let folder = tempfile::tempdir_in(std::env::var("MUSTER_BENCH_FOLDER").unwrap_or_else(|_| ".".into())).unwrap();
    println!("fsync of 512 octets: median {:?}", fsync(folder.path()));
    println!("\n| members | operation | clients | muster/s | etcd/s | ratio | muster p50, p99 ms | etcd p50, p99 ms |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for members in [1, 3] {
        let muster = Servers::start(Kind::Muster, members, folder.path()).await;
        let etcd = Servers::start(Kind::Etcd, members, folder.path()).await;
        for operation in [Operation::Put, Operation::Read, Operation::StaleRead] {
            for clients in CLIENTS {
                let ours = Load { operation, clients, span: SPAN }.run(&muster.clients).await;
                let theirs = Load { operation, clients, span: SPAN }.run(&etcd.clients).await;
                row(members, operation, clients, &ours, &theirs);
            }
        }
    }
    println!();
    for kind in [Kind::Muster, Kind::Etcd] {
        let servers = Servers::start(kind, 1, folder.path()).await;
        let empty = servers.resident();
        load::fill(&servers.clients[0], 100_000).await;
        let full = servers.resident();
        println!("{kind:?}: memory {empty} MiB empty, {full} MiB with 100,000 keys of 256 octets");
        let (one, many) = load::watchers(&servers.clients[0]).await;
        println!("{kind:?}: a change reaches 1,000 watchers of one key in {one:?} (median of 20)");
        println!("{kind:?}: 10,000 changes of 10,000 watched keys arrive in {many:?}");
    }
}

fn row(members: usize, operation: Operation, clients: usize, ours: &Figures, theirs: &Figures) {
    println!(
        "| {members} | {operation:?} | {clients} | {:.0} | {:.0} | {:.2} | {:.2}, {:.2} | {:.2}, {:.2} |",
        ours.rate,
        theirs.rate,
        ours.rate / theirs.rate,
        ours.median,
        ours.p99,
        theirs.median,
        theirs.p99,
    );
}

/// Median time of a write with fsync.
fn fsync(folder: &std::path::Path) -> Duration {
    let mut file = File::create(folder.join("fsync")).unwrap();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[7; 512]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
