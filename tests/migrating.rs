//! The guides of `docs/migrating.md`, run as written on three hosts in networks of their own.
//!
//! Each section of the page is a scenario: its files and commands are applied in order. The comment above a block says where:
//! `<!-- file PATH -->` is a file of every host, `<!-- on host-1 -->` has commands, `<!-- the server -->` a program that keeps
//! running on every host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

#[path = "migrating/guide_host.rs"]
mod guide_host;

use guide_host::Hosts;
use support::{
    document::{Block, blocks, commands, without_times},
    skip, wait,
};

const PAGE: &str = "docs/migrating.md";
/// Section with the steps that guides have in common.
const COMMON: &str = "Three hosts";

/// Reports whether the host can run the guides.
fn can_run(test: &str) -> bool {
    let tools = [("dig", "bind9-dnsutils"), ("curl", "curl"), ("python3", "python3")];
    skip::machines(test) && tools.iter().all(|(program, package)| skip::tool(test, program, package))
}

/// Applies the blocks of a section to the hosts.
fn follow(hosts: &mut Hosts, section: &str) {
    let blocks: Vec<Block> = blocks(PAGE).into_iter().filter(|block| block.section == section).collect();
    assert!(!blocks.is_empty(), "{PAGE} has no blocks in {section:?}");
    for Block { kind, language, text, .. } in blocks {
        let words: Vec<&str> = kind.split(' ').collect();
        match words[..] {
            ["file", path] => hosts.all().for_each(|host| host.write(path, &text)),
            ["file", path, "on", host] => hosts.host(host).write(path, &text),
            ["not", "run:", ..] => {}
            ["config"] => {
                hosts.host("host-1").write("/run/part.yaml", &text);
                hosts.host("host-1").output_of("muster validate /run/part.yaml");
            }
            ["the", "server"] => hosts.start_everywhere(&text),
            ["on", "every", "host"] => hosts.all().for_each(|host| drop(host.output_of(&text))),
            ["on", host, "and", other] => {
                for host in [host, other] {
                    hosts.host(host).output_of(&text);
                }
            }
            ["on", host] if language == "console" => {
                for (command, expected) in commands(&text) {
                    prints(hosts, host, &command, &expected);
                }
            }
            ["on", host] => drop(hosts.host(host).output_of(&text)),
            _ => panic!("{section}: a block with the comment {kind:?}:\n{text}"),
        }
    }
}

/// Repeats a command on a host until it prints the expected output.
fn prints(hosts: &Hosts, host: &str, command: &str, expected: &str) {
    wait::poll(|| {
        let printed = hosts.host(host).output_of(command);
        if without_times(&printed) == without_times(expected) {
            return Ok(());
        }
        Err(format!("{host}: {command}\nprints\n{printed}instead of\n{expected}"))
    });
}

#[test]
fn guide_for_three_etcd_servers_is_done_with_muster() {
    if can_run("guide_for_three_etcd_servers_is_done_with_muster") {
        let mut hosts = Hosts::new();
        follow(&mut hosts, COMMON);
        follow(&mut hosts, "From etcd");
    }
}

#[test]
fn guide_for_three_zookeeper_servers_is_done_with_muster() {
    if can_run("guide_for_three_zookeeper_servers_is_done_with_muster") {
        let mut hosts = Hosts::new();
        follow(&mut hosts, COMMON);
        follow(&mut hosts, "From ZooKeeper");
    }
}

#[test]
fn guide_for_three_consul_servers_is_done_with_muster() {
    if can_run("guide_for_three_consul_servers_is_done_with_muster") {
        follow(&mut Hosts::new(), "From Consul");
    }
}

#[test]
fn hosts_file_becomes_a_zone_and_services() {
    if can_run("hosts_file_becomes_a_zone_and_services") {
        let mut hosts = Hosts::new();
        follow(&mut hosts, COMMON);
        follow(&mut hosts, "From hosts files");
    }
}

#[test]
fn every_block_of_the_page_belongs_to_a_guide() {
    let followed = [COMMON, "From Consul", "From etcd", "From ZooKeeper", "From hosts files"];
    for block in blocks(PAGE) {
        assert!(followed.contains(&block.section.as_str()), "no test follows {:?}:\n{}", block.section, block.text);
    }
}
