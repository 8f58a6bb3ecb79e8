//! Many reloads of checks with real sockets and processes must leak neither files nor processes.
//!
//! The file has a single test, because it counts the open files of the whole process.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail as the test does")]

use std::{sync::Arc, time::Duration};

use muster::{
    checks::{self, Checked, Inputs, Options, Outputs},
    model::{
        maintenance::Maintenance,
        name::Label,
        service::{
            Check, Definition, Definitions, Endpoint, HttpProbe, Instance, InstanceKey, Pace, Probe, ProbeTls,
            instance_ref::InstanceRef,
        },
    },
};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 100;
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_leak_no_files_and_no_processes() {
    let (hanging, mut requests) = hanging_server().await;
    let (definitions, watched) = watch::channel(Definitions::new());
    let (checked, _announced) = watch::channel(Checked::default());
    let shutdown = CancellationToken::new();
    let options = Options::for_this_process(true, 1);
    let (_reports, ttl_reports) = mpsc::channel(1);
    let maintenance = watch::channel(Maintenance::default()).1;
    let inputs = Inputs {
        definitions: watched,
        node: Label::parse("host-a").unwrap(),
        node_checks: watch::channel(Arc::from([])).1,
        maintenance,
        ttl_reports,
        former: Default::default(),
    };
    let outputs = Outputs { checked, results: watch::Sender::default(), texts: watch::Sender::default() };
    let running = tokio::spawn(checks::run(inputs, outputs, options, shutdown.clone()));

    // The first rounds open descriptors of the runtime, which stay open.
    let (before, mut settled) = (sockets(), 0);
    for round in 0..ROUNDS {
        let wanted = format!("GET /{round} ");
        definitions.send_replace(all_kinds(&hanging, round));
        let arrives = async { while !requests.recv().await.unwrap().starts_with(&wanted) {} };
        timeout(DEADLINE, arrives).await.unwrap_or_else(|_| panic!("no probe of round {round}"));
        if round == 5 || round == ROUNDS - 1 {
            definitions.send_replace(Definitions::new());
            until("no process is left", || children().is_empty()).await;
            if round == 5 {
                until("connections are closed", || sockets() <= before).await;
                settled = open_files();
            }
        }
    }
    until("no more files are open than before", || open_files() <= settled).await;

    definitions.send_replace(all_kinds(&hanging, ROUNDS));
    until("a process runs", || !children().is_empty()).await;
    shutdown.cancel();
    running.await.unwrap();
    until("shutdown ends the processes", || children().is_empty()).await;
    until("shutdown closes the files", || open_files() <= settled).await;
}

/// Returns two instances with a check of every kind that opens a socket or process; all are new in each round.
fn all_kinds(hanging: &Endpoint, round: usize) -> Definitions {
    let check = |probe| Check {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(100),
        rise: 1,
        fall: 1,
        ..Check::new(probe)
    };
    let http = |scheme: &str| {
        Probe::Http(HttpProbe {
            tls: ProbeTls { skip_verify: true, server_name: None },
            ..HttpProbe::get(format!("{scheme}://{hanging}/{round}").parse().unwrap())
        })
    };
    let slow = |seconds: u32| vec!["/bin/sh".into(), "-c".into(), format!("sleep {seconds} & sleep {seconds}")];
    let checks = vec![
        check(http("http")),
        check(http("https")),
        check(Probe::Tcp(hanging.clone())),
        check(Probe::Grpc { endpoint: hanging.clone(), service: round.to_string(), tls: None }),
        check(Probe::Exec { argv: slow(60) }),
        check(Probe::Exec { argv: vec!["/bin/echo".into(), round.to_string()] }),
    ];
    let define = |id: &str| {
        let key = InstanceKey { service: Label::parse("web").unwrap().into(), id: Label::parse(id).unwrap() };
        let instance = Arc::new(Instance { port: Some(80), ..Instance::new(key, vec![[127, 0, 0, 1].into()]) });
        let instance_ref = InstanceRef::from(&instance);
        (instance_ref, Arc::new(Definition { instance, enabled: true, checks: checks.clone(), pace: Pace::default() }))
    };
    [define("a"), define("b")].into_iter().collect()
}

/// Starts a server that forwards the start of each request to the channel, and never responds.
async fn hanging_server() -> (Endpoint, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let (asked, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let _ = asked.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
                }
            });
        }
    });
    (endpoint, requests)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "timed out: {what}; open: {:?}, children: {:?}", links(), children());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the targets of this process's open descriptors.
fn links() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string())).collect()
}

fn open_files() -> usize {
    links().len()
}

fn sockets() -> usize {
    links().iter().filter(|link| link.starts_with("socket:")).count()
}

/// Returns the children of this process, zombies included.
fn children() -> Vec<String> {
    let parent = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.parse::<u32>().ok()?;
        std::fs::read_to_string(path.join("stat")).ok()
    });
    stats
        .filter(|stat| stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(&parent))
        .collect()
}
