# An agent as configuration management writes it.
datacenter = "fra2"
node_name  = "app-07.prod.example"
data_dir   = "/opt/consul"
domain     = "corp.consul."
alt_domain = "disco.example"

bind_addr      = "{{ GetInterfaceIP \"eth1\" }}"
advertise_addr = "10.20.0.7"
client_addr    = "127.0.0.1 10.20.0.7"

encrypt             = "bXVzdGVyLWltcG9ydC10ZXN0LWtleS0zMi1vY3RldHM="
retry_join          = ["10.20.0.1", "10.20.0.2:8301", "provider=aws tag_key=role tag_value=consul secret_access_key=hunter2"]
retry_join_wan      = ["[fd00:20::1]:8302"]
retry_interval      = "15s"
leave_on_terminate  = true
rejoin_after_leave  = true
disable_update_check = true
enable_local_script_checks = true
log_level = "WARN"
log_json  = true
recursors = ["10.20.0.53", "9.9.9.9"]

node_meta {
  rack   = "r12"
  "role" = "app"
}

ports {
  dns      = 53
  http     = 8500
  https    = 8501
  grpc     = 8502
  serf_lan = 8301
}

dns_config {
  only_passing  = true
  allow_stale   = true
  node_ttl      = "30s"
  enable_truncate = true
  service_ttl {
    "*"    = "5s"
    "api"  = "1s"
    "gone" = "3s"
    "ca*"  = "20s"
  }
  soa {
    min_ttl = 2
    refresh = 3600
  }
}

locality {
  region = "eu-central"
  zone   = "rack-a"
}

acl {
  enabled        = true
  default_policy = "deny"
  tokens {
    agent   = "8d1f6f0e-agent-secret"
    default = "c0ffee00-default-secret"
  }
}

tls {
  defaults {
    ca_file         = "/etc/consul.d/ca.pem"
    cert_file       = "/etc/consul.d/app-07.pem"
    key_file        = "/etc/consul.d/app-07-key.pem"
    verify_incoming = true
    verify_outgoing = true
  }
  internal_rpc {
    verify_server_hostname = true
  }
}

telemetry {
  prometheus_retention_time = "60s"
  disable_hostname          = true
  statsd_address            = "10.20.0.9:8125"
}

ui_config {
  enabled          = true
  metrics_provider = "prometheus"
}

performance {
  raft_multiplier = 1
}

autopilot {
  cleanup_dead_servers = true
}

connect {
  enabled = true
}

watches = [
  { type = "checks", handler_type = "script", args = ["/usr/bin/alert"] }
]

service {
  name = "api"
  id   = "api-blue"
  port = 9000
  tags = ["blue", "v3"]
  check {
    id       = "api-health"
    name     = "API answers"
    http     = "http://127.0.0.1:9000/health"
    interval = "5s"
    timeout  = "1s"
  }
}

check {
  id       = "disk"
  name     = "Disk space"
  args     = ["/usr/lib/nagios/plugins/check_disk", "-w", "10%"]
  interval = "1m"
}
