//! Settings of Consul that have no counterpart: those that muster does not need, and those that change its behaviour.

use super::listen::NO_GRPC;
use crate::import::section::{Place, Section, is_empty};

const NO_SERVERS: &str = "muster has no servers, no quorum and no leader: every agent is alike";
const NO_MESH: &str = "muster has no service mesh";
const NO_ACL: &str =
    "muster has no access control lists: `http.tokens_dir` has tokens with the scopes read, register and operate";
const NO_CLIENT_CERTIFICATES: &str = "The HTTP API checks tokens instead of certificates of clients: `http.tokens_dir`";
const TLS: &str =
    "Certificates are for names: copy the files for muster's user, and set `http.certificate` and `http.key`";
const NO_CA: &str = "Agents authenticate each other by the gossip key; commands take `--ca-file`";
const NO_KV: &str = "The store has a size limit (`store.max_size`) and no settings of that kind";
const LOG: &str = "The agent logs to standard error, which systemd keeps";
const METRICS: &str = "Prometheus scrapes /metrics; muster sends no metrics elsewhere";
const ALWAYS: &str = "Always so in muster";
const NO_PHONE: &str = "muster contacts no server of its makers";
const NO_EXEC: &str = "muster runs no commands of other hosts";
const LIMITS: &str = "muster has limits of its own, which docs/limits.md lists";
const NO_CLOUD: &str = "muster has no cloud service";
const NO_ENTERPRISE: &str = "A feature of Consul Enterprise";

/// Keys that muster does not need.
const NOT_NEEDED: &[(&str, &str)] = &[
    ("server", NO_SERVERS),
    ("bootstrap", NO_SERVERS),
    ("bootstrap_expect", NO_SERVERS),
    ("autopilot", NO_SERVERS),
    ("raft_logstore", NO_SERVERS),
    ("raft_protocol", NO_SERVERS),
    ("raft_snapshot_interval", NO_SERVERS),
    ("raft_snapshot_threshold", NO_SERVERS),
    ("raft_trailing_logs", NO_SERVERS),
    ("raft_boltdb", NO_SERVERS),
    ("performance", NO_SERVERS),
    ("non_voting_server", NO_SERVERS),
    ("read_replica", NO_SERVERS),
    ("primary_datacenter", NO_SERVERS),
    ("primary_gateways", NO_SERVERS),
    ("primary_gateways_interval", NO_SERVERS),
    ("protocol", NO_SERVERS),
    ("discard_check_output", "A report that changes only its text is not gossiped at once"),
    ("check_update_interval", "A report that changes only its text is not gossiped at once"),
    ("check_output_max_size", "The first line of output is kept, within a limit"),
    ("check_reap_interval", "Registered instances are deregistered without a delay"),
    ("data_dir", "muster has a folder of its own, /var/lib/muster: both systems may not share one"),
    ("node_id", "Ids of nodes derive from their names"),
    ("disable_host_node_id", "Ids of nodes derive from their names"),
    ("disable_update_check", NO_PHONE),
    ("disable_anonymous_signature", NO_PHONE),
    ("disable_remote_exec", NO_EXEC),
    ("disable_coordinates", "muster has no network coordinates: `zone` and `nearest` choose near instances"),
    ("leave_on_terminate", "systemd stops or restarts the agent, which leaves or hands over accordingly"),
    ("skip_leave_on_interrupt", "systemd stops or restarts the agent, which leaves or hands over accordingly"),
    ("pid_file", "systemd knows the process"),
    ("enable_syslog", LOG),
    ("syslog_facility", LOG),
    ("log_file", LOG),
    ("log_rotate_duration", LOG),
    ("log_rotate_bytes", LOG),
    ("log_rotate_max_files", LOG),
    ("enable_debug", "muster has no profiling interface"),
    ("experiments", NO_SERVERS),
    ("rpc", NO_SERVERS),
    ("auto_reload_config", "Service files are read when they change; `muster reload` reads the configuration"),
    ("config_entries", NO_MESH),
    ("cache", LIMITS),
    ("default_query_time", "Blocking queries have Consul's limits"),
    ("max_query_time", "Blocking queries have Consul's limits"),
    ("enable_agent_tls_for_checks", NO_CA),
    ("license_path", NO_ENTERPRISE),
    ("reporting", NO_PHONE),
];

/// Keys whose absence changes the behaviour.
const NOT_CONVERTED: &[(&str, &str)] = &[
    ("acl", NO_ACL),
    ("acl_datacenter", NO_ACL),
    ("acl_default_policy", NO_ACL),
    ("acl_down_policy", NO_ACL),
    ("acl_master_token", NO_ACL),
    ("acl_agent_token", NO_ACL),
    ("acl_agent_master_token", NO_ACL),
    ("acl_replication_token", NO_ACL),
    ("acl_token", NO_ACL),
    ("acl_ttl", NO_ACL),
    ("acl_enforce_version_8", NO_ACL),
    ("enable_acl_replication", NO_ACL),
    ("enable_key_list_policy", NO_ACL),
    ("cert_file", TLS),
    ("key_file", TLS),
    ("ca_file", NO_CA),
    ("ca_path", NO_CA),
    ("verify_incoming", NO_CLIENT_CERTIFICATES),
    ("verify_incoming_rpc", NO_CLIENT_CERTIFICATES),
    ("verify_incoming_https", NO_CLIENT_CERTIFICATES),
    ("verify_outgoing", NO_CA),
    ("verify_server_hostname", NO_CA),
    ("tls_min_version", "TLS 1.2 and 1.3, with the suites that rustls has"),
    ("tls_cipher_suites", "TLS 1.2 and 1.3, with the suites that rustls has"),
    ("tls_prefer_server_cipher_suites", "TLS 1.2 and 1.3, with the suites that rustls has"),
    ("server_name", NO_CA),
    ("auto_encrypt", NO_CA),
    ("auto_config", "Every node has its configuration in files"),
    ("connect", NO_MESH),
    ("peering", NO_MESH),
    ("xds", NO_MESH),
    ("watches", "`muster monitor` and the streams below /v1/watch show changes; muster starts no programs for them"),
    ("snapshot_agent", NO_KV),
    ("kv_max_value_size", NO_KV),
    ("txn_max_req_len", NO_KV),
    ("session_ttl_min", NO_KV),
    ("unix_sockets", "The socket of the HTTP API is for the agent's user and group"),
    ("limits", LIMITS),
    ("http_config", "The HTTP API has no settings of that kind"),
    ("segment", NO_ENTERPRISE),
    ("segments", NO_ENTERPRISE),
    ("partition", NO_ENTERPRISE),
    ("audit", NO_ENTERPRISE),
    ("cloud", NO_CLOUD),
    ("recursor", "Write a list: `recursors`"),
    ("retry_join_ec2", "muster does not ask cloud providers for peers: list addresses, or a name that has theirs"),
    ("retry_join_gce", "muster does not ask cloud providers for peers: list addresses, or a name that has theirs"),
    ("retry_join_azure", "muster does not ask cloud providers for peers: list addresses, or a name that has theirs"),
    ("ui_dir", "The web UI is part of the program"),
    ("ui_content_path", "The web UI is at /ui/"),
    ("default_intention_policy", NO_MESH),
    ("enable_central_service_config", NO_MESH),
    ("allow_write_http_from", "The HTTP API checks tokens: `http.tokens_dir`"),
];

/// Reports all keys that are left.
pub(super) fn report(section: Section<'_>) {
    ui(&section);
    tls(&section);
    telemetry(&section);
    section.skip(NOT_NEEDED);
    section.lose(NOT_CONVERTED);
    section.finish();
}

/// Reports the ports that are left.
pub(super) fn ports(ports: Section<'_>) {
    ports.skip(&[
        ("server", NO_SERVERS),
        ("rpc", NO_SERVERS),
        ("grpc", NO_GRPC),
        ("grpc_tls", NO_GRPC),
        ("sidecar_min_port", NO_MESH),
        ("sidecar_max_port", NO_MESH),
        ("expose_min_port", NO_MESH),
        ("expose_max_port", NO_MESH),
    ]);
    ports.finish();
}

fn ui(section: &Section<'_>) {
    const ON: &str = "The web UI is always at /ui/";
    let report = |on: bool, place: &Place| {
        if on {
            section.context.unneeded(place, ON);
        } else {
            section.context.lost(place, ON);
        }
    };
    if let Some((on, place)) = section.flag("ui") {
        report(on, &place);
    }
    if let Some(ui) = section.section("ui_config") {
        if let Some((on, place)) = ui.flag("enabled") {
            report(on, &place);
        }
        for (_, field) in ui.rest() {
            section.context.lost(&field.place, "The web UI has no settings");
        }
    }
}

fn tls(section: &Section<'_>) {
    let Some(tls) = section.section("tls") else { return };
    for part in ["defaults", "https", "grpc", "internal_rpc"] {
        let Some(settings) = tls.section(part) else { continue };
        match part {
            "defaults" | "https" => {
                settings.lose(&[
                    ("cert_file", TLS),
                    ("key_file", TLS),
                    ("verify_incoming", NO_CLIENT_CERTIFICATES),
                    ("tls_min_version", "TLS 1.2 and 1.3, with the suites that rustls has"),
                    ("tls_cipher_suites", "TLS 1.2 and 1.3, with the suites that rustls has"),
                ]);
                for (_, field) in settings.rest().into_iter().filter(|(_, field)| !is_empty(field.node)) {
                    section.context.lost(&field.place, NO_CA);
                }
            }
            _ => {
                let reason = if part == "grpc" { NO_GRPC } else { NO_CA };
                for (_, field) in settings.rest() {
                    section.context.unneeded(&field.place, reason);
                }
            }
        }
    }
    tls.lose(&[("enable_agent_tls_for_checks", NO_CA)]);
    tls.finish();
}

fn telemetry(section: &Section<'_>) {
    let Some(telemetry) = section.section("telemetry") else { return };
    telemetry.skip(&[
        ("prometheus_retention_time", ALWAYS),
        ("disable_hostname", ALWAYS),
        ("metrics_prefix", "Metrics begin with muster_"),
    ]);
    for (_, field) in telemetry.rest().into_iter().filter(|(_, field)| !is_empty(field.node)) {
        section.context.lost(&field.place, METRICS);
    }
}
