checks = [
  {
    id       = "mem-util"
    name     = "Memory utilization"
    args     = ["/usr/local/bin/check_mem.sh", "-limit", "256MB"]
    interval = "10s"
    timeout  = "1s"
  },
  {
    name     = "sshd"
    tcp      = "127.0.0.1:22"
    interval = "30s"
  }
]
