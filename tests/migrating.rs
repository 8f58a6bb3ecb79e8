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
    follow_blocks(hosts, section, |_| true);
}

/// Applies some blocks of a section to the hosts.
fn follow_blocks(hosts: &mut Hosts, section: &str, is_wanted: fn(&Block) -> bool) {
    let all = blocks(PAGE).into_iter().filter(|block| block.section == section);
    let blocks: Vec<Block> = all.filter(is_wanted).collect();
    assert!(!blocks.is_empty(), "{PAGE} has no such blocks in {section:?}");
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
        let mut hosts = Hosts::new();
        follow(&mut hosts, "From Consul");
        for host in hosts.all() {
            assert_eq!(host.output_of("stat -c '%U %G %a' /etc/muster/gossip.key"), "root muster 640\n");
        }
    }
}

/// Configuration of a muster that takes the place of Consul: its ports, its names and a cluster of its own.
const SUBSTITUTE_FOR_CONSUL: &str = "\
data_dir: /var/lib/consul
services_dir: /run/consul/services.d
datacenter: fra1
alias_domains: [{domain: consul, scheme: consul}]
dns: {listen: [127.0.0.1:8600], only_passing: true}
http: {listen: [127.0.0.1:8500]}
gossip: {listen: 0.0.0.0:8301, join: [10.0.0.1:8301, 10.0.0.2:8301, 10.0.0.3:8301], insecure: true}
";

/// Starts the substitute on a host.
const START_CONSUL: &str = "\
muster import consul /etc/consul.d --services-only --output /run/consul || test $? = 1
muster agent --config /run/consul/muster.yaml >/run/consul/log 2>&1 &
echo $! >/run/consul.pid
until grep -q 'INFO answering' /run/consul/log; do sleep 0.02; done
";

#[test]
fn muster_is_set_up_beside_consul_compared_and_switched_to() {
    if can_run("muster_is_set_up_beside_consul_compared_and_switched_to") {
        let mut hosts = Hosts::new();
        follow_blocks(&mut hosts, "From Consul", |block| block.kind.starts_with("file "));
        follow_blocks(&mut hosts, "From Consul", |block| block.kind == "the server");
        follow_blocks(&mut hosts, COMMON, |block| block.kind == "on host-1");
        for host in hosts.all() {
            host.output_of("mkdir /run/consul /var/lib/consul");
            host.write("/run/consul/muster.yaml", SUBSTITUTE_FOR_CONSUL);
            host.output_of(START_CONSUL);
        }
        prints(
            &hosts,
            "host-1",
            "dig @127.0.0.1 -p 8600 +short web.service.consul | sort",
            "10.0.0.1\n10.0.0.2\n10.0.0.3\n",
        );
        follow(&mut hosts, "Beside Consul");
    }
}

#[test]
fn databases_without_an_agent_are_answered() {
    if can_run("databases_without_an_agent_are_answered") {
        let mut hosts = Hosts::new();
        follow(&mut hosts, COMMON);
        // host-3 has the address of the database, too.
        hosts.host("host-3").output_of("ip address add 10.0.0.102/32 dev eth0");
        hosts.start_everywhere("python3 -m http.server --bind 0.0.0.0 5432");
        follow(&mut hosts, "Databases without an agent");
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
    let followed = [
        COMMON,
        "From Consul",
        "Beside Consul",
        "Databases without an agent",
        "From etcd",
        "From ZooKeeper",
        "From hosts files",
    ];
    for block in blocks(PAGE) {
        assert!(followed.contains(&block.section.as_str()), "no test follows {:?}:\n{}", block.section, block.text);
    }
}
