//! Clusters of muster and, for comparison, of Serf: time to converge, to spread a change and to detect a crash; false
//! detections; and cost.
//!
//! `cargo bench --bench cluster` takes about three quarters of an hour and prints one table per program; each measured value
//! is on a line that begins with `raw:`. Definitions and results are in `docs/cluster-benchmark.md`. It needs `unshare`, `setpriv`, `ip`
//! and `nft`, and root or user namespaces; Serf is left out if it is not installed. Options, after `--`:
//!
//! ```text
//! --nodes 3,10,30,50       processes; "none": no such clusters
//! --in-process 50,150@1000    nodes in one process, and their interval in ms; "none"
//! --paused 50,150,500      nodes in one process whose clock waits for the processor; "none"
//! --serf lan,local         Serf's profiles; "none"
//! --crashes 10             of an agent; half as many of a host, and of an agent under loss
//! --serf-crashes 5         the same for Serf, which takes longer
//! --joins 5  --stalls 5  --flips 100
//! --idle 30                seconds in which the cost is measured
//! --loss 60  --percent 20  seconds of loss, "0": none; packets lost of a hundred
//! --minutes N              the same as --loss, in minutes
//! --binary PATH            another muster than the one just built
//! ```

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue ends")]

mod cluster;
mod dns;
mod in_process;
mod measure;
mod paused;
mod process;
mod sandbox;
mod serf;
mod times;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    str::FromStr,
    time::Duration,
};

use cluster::Program;
use in_process::Size;
use measure::Figures;

/// Measurements to run.
pub(crate) struct Options {
    nodes: Vec<usize>,
    in_process: Vec<Size>,
    paused: Vec<usize>,
    serf: Vec<&'static str>,
    crashes: usize,
    serf_crashes: usize,
    joins: usize,
    stalls: usize,
    flips: usize,
    idle: Duration,
    loss: Duration,
    percent: u32,
    binary: PathBuf,
}

impl Options {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            nodes: vec![3, 10, 30, 50],
            // At the default interval, more nodes need more than two cores.
            in_process: list("50,150@1000").unwrap(),
            paused: vec![50, 150, 500],
            serf: vec!["lan", "local"],
            crashes: 10,
            serf_crashes: 5,
            joins: 5,
            stalls: 5,
            flips: 100,
            // Serf exchanges full states at this interval.
            idle: Duration::from_secs(30),
            loss: Duration::from_secs(60),
            percent: 20,
            binary: env!("CARGO_BIN_EXE_muster").into(),
        };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
            match name.as_str() {
                "--nodes" => options.nodes = list(value)?,
                "--in-process" => options.in_process = list(value)?,
                "--paused" => options.paused = list(value)?,
                "--serf" => {
                    let profiles: Vec<String> = list(value)?;
                    options.serf = ["lan", "local"].into_iter().filter(|p| profiles.iter().any(|q| p == q)).collect();
                }
                "--crashes" => options.crashes = one(value)?,
                "--serf-crashes" => options.serf_crashes = one(value)?,
                "--joins" => options.joins = one(value)?,
                "--stalls" => options.stalls = one(value)?,
                "--flips" => options.flips = one(value)?,
                "--idle" => options.idle = Duration::from_secs(one(value)?),
                "--loss" => options.loss = Duration::from_secs(one(value)?),
                "--minutes" => options.loss = Duration::from_secs(60 * one::<u64>(value)?),
                "--percent" => options.percent = one(value)?,
                "--binary" => options.binary = value.into(),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(options)
    }

    /// Returns the binary of a program.
    pub(crate) fn binary(&self, program: Program) -> PathBuf {
        if program == Program::Muster { self.binary.clone() } else { "serf".into() }
    }
}

fn one<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{value}?"))
}

fn list<T: FromStr>(value: &str) -> Result<Vec<T>, String> {
    let values = value.split(',').filter(|value| *value != "none");
    values.map(one).collect()
}

fn main() -> ExitCode {
    let arguments = match sandbox::enter() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    // Each in-process cluster runs in a new process, to measure its memory alone.
    if let [word, size, idle] = &arguments[..]
        && word == "alone"
    {
        in_process::run(one(size).unwrap(), Duration::from_secs(one(idle).unwrap()));
        return ExitCode::SUCCESS;
    }
    if let [word, nodes] = &arguments[..]
        && word == "paused"
    {
        paused::run(one(nodes).unwrap());
        return ExitCode::SUCCESS;
    }
    match Options::read(&arguments) {
        Ok(options) => {
            run(&options);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) {
    let cores = std::thread::available_parallelism().unwrap();
    println!("{cores} cores, Linux {}", first_line(Command::new("uname").arg("-r")).unwrap_or_default());
    let muster = first_line(Command::new(&options.binary).arg("--version")).unwrap_or_default();
    println!("loss: {} % of packets for {} s, each time", options.percent, options.loss.as_secs());
    table(&muster, Program::Muster, options);
    let Some(version) = first_line(Command::new("serf").arg("version")) else {
        println!("\nSerf is not installed.");
        in_process(options);
        return paused(options);
    };
    for profile in &options.serf {
        table(&format!("Serf {version}, -profile={profile}"), Program::Serf(profile), options);
    }
    in_process(options);
    paused(options);
}

fn table(title: &str, program: Program, options: &Options) {
    if options.nodes.is_empty() {
        return;
    }
    println!("\n{title}\n\n{}", Figures::HEAD);
    for nodes in &options.nodes {
        println!("| {nodes} {}", measure::run(program, *nodes, options));
    }
}

fn in_process(options: &Options) {
    if options.in_process.is_empty() {
        return;
    }
    println!("\nmuster's gossip, all nodes in one process\n\n{}", in_process::HEAD);
    for size in &options.in_process {
        let idle = options.idle.as_secs().to_string();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--inside", "alone", &size.to_string(), &idle])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("| {size} | failed |");
        }
    }
}

fn paused(options: &Options) {
    if options.paused.is_empty() {
        return;
    }
    println!(
        "\nmuster's gossip, all nodes in one process, under a clock that waits for the processor\n\n{}",
        paused::HEAD
    );
    for nodes in &options.paused {
        let status =
            Command::new(std::env::current_exe().unwrap()).args(["--inside", "paused", &nodes.to_string()]).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("| {nodes} | failed |");
        }
    }
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}
