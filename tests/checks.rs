//! A day of reloads in a few seconds, with real sockets and processes: nothing may be left over.
//!
//! A file of its own, and one test in it, because it counts what the whole process has open.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail as the test does")]

use std::{sync::Arc, time::Duration};

use muster::{
    checks::{self, Inputs, Options},
    model::{
        announcement::Announcements,
        health::Status,
        maintenance::Maintenance,
        name::Label,
        service::{Check, Definition, Definitions, Endpoint, HttpProbe, Instance, InstanceKey, Pace, Probe},
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
async fn a_hundred_reloads_leave_no_file_and_no_process_behind() {
    let (hanging, mut asked) = hanging_server().await;
    let (definitions, watched) = watch::channel(Definitions::new());
    let (announcements, _announced) = watch::channel(Announcements::new());
    let shutdown = CancellationToken::new();
    let options = Options::for_this_process(true, 1);
    let (_beats, heard) = mpsc::channel(1);
    let inputs = Inputs { definitions: watched, maintenance: watch::channel(Maintenance::default()).1, beats: heard };
    let running = tokio::spawn(checks::run(inputs, announcements, options, shutdown.clone()));

    // The first rounds open what stays open: the runtime's own descriptors.
    let (before, mut settled) = (sockets(), 0);
    for round in 0..ROUNDS {
        let wanted = format!("GET /{round} ");
        definitions.send_replace(all_kinds(&hanging, round));
        let arrives = async { while !asked.recv().await.unwrap().starts_with(&wanted) {} };
        timeout(DEADLINE, arrives).await.unwrap_or_else(|_| panic!("no probe of round {round}"));
        if round == 5 || round == ROUNDS - 1 {
            definitions.send_replace(Definitions::new());
            until("the processes are gone", || children().is_empty()).await;
            if round == 5 {
                until("the connections are closed", || sockets() <= before).await;
                settled = open_files();
            }
        }
    }
    until("as few files are open as before", || open_files() <= settled).await;

    definitions.send_replace(all_kinds(&hanging, ROUNDS));
    until("a process runs", || !children().is_empty()).await;
    shutdown.cancel();
    running.await.unwrap();
    until("shutdown has ended the processes", || children().is_empty()).await;
    until("and closed the files", || open_files() <= settled).await;
}

/// Two instances with a check of every kind that opens something; all are new in each round.
fn all_kinds(hanging: &Endpoint, round: usize) -> Definitions {
    let check = |probe| Check {
        probe,
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(100),
        rise: 1,
        fall: 1,
        initial: Status::Critical,
        title: None,
    };
    let http = |scheme: &str| {
        Probe::Http(HttpProbe {
            url: format!("{scheme}://{hanging}/{round}").parse().unwrap(),
            method: "GET".into(),
            headers: vec![],
            body: None,
            expect_status: vec![],
            tls_skip_verify: true,
        })
    };
    let slow = |seconds: u32| vec!["/bin/sh".into(), "-c".into(), format!("sleep {seconds} & sleep {seconds}")];
    let checks = vec![
        check(http("http")),
        check(http("https")),
        check(Probe::Tcp(hanging.clone())),
        check(Probe::Grpc { endpoint: hanging.clone(), service: round.to_string() }),
        check(Probe::Exec { argv: slow(60) }),
        check(Probe::Exec { argv: vec!["/bin/echo".into(), round.to_string()] }),
    ];
    let define = |id: &str| {
        let key = InstanceKey { service: Label::parse("web").unwrap(), id: Label::parse(id).unwrap() };
        let instance = Instance { port: Some(80), ..Instance::new(key.clone(), vec![[127, 0, 0, 1].into()]) };
        (
            key,
            Arc::new(Definition {
                instance: Arc::new(instance),
                enabled: true,
                checks: checks.clone(),
                pace: Pace::default(),
            }),
        )
    };
    [define("a"), define("b")].into_iter().collect()
}

/// A server that passes on the beginning of what it is asked, and never answers.
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
        assert!(Instant::now() < end, "not in time: {what}; open: {:?}, children: {:?}", links(), children());
        sleep(Duration::from_millis(5)).await;
    }
}

/// What this process has open.
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

/// Processes whose parent is this one, those that nobody has reaped included.
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
