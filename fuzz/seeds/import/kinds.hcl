service {
  name = "kinds"
  port = 1000
  checks = [
    { name = "ttl", ttl = "30s", notes = "the job reports" },
    { name = "tcp", tcp = "db.internal:5432", interval = "10s" },
    { name = "tcp tls", tcp = "db.internal:5433", tcp_use_tls = true, interval = "10s" },
    { name = "udp", udp = "127.0.0.1:514", interval = "10s" },
    { name = "grpc", grpc = "127.0.0.1:50051", interval = "10s" },
    { name = "h2ping", h2ping = "127.0.0.1:8443", interval = "10s", h2ping_use_tls = false },
    { name = "docker", docker_container_id = "f97ee83f", shell = "/bin/sh", args = ["/check"], interval = "10s" },
    { name = "os", os_service = "nginx", interval = "30s" },
    { name = "alias", alias_service = "redis-main" },
    { name = "alias node", alias_node = "db-3" },
    { name = "shell", args = ["sh", "-c", "test -e /run/up"], interval = "10s", timeout = "2s" },
    { name = "nothing", interval = "10s" },
    { name = "zero", ttl = "0s", http = "http://127.0.0.1:1000/", interval = "0s" },
    { name = "two", http = "http://127.0.0.1:1000/", tcp = "127.0.0.1:1000", interval = "10s" },
    { name = "bad url", http = "ftp://127.0.0.1/", interval = "10s" },
    { name = "bad duration", tcp = "127.0.0.1:1000", interval = "soon" }
  ]
}
