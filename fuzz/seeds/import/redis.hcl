service {
  name = "redis"
  id   = "redis-main"
  port = 6379
  tags = ["primary"]
  meta = {
    version = "7.2"
    owner   = "cache team"
  }
  tagged_addresses = {
    lan = {
      address = "192.0.2.55"
      port    = 6379
    }
    wan = {
      address = "198.51.100.55"
      port    = 16379
    }
  }
  enable_tag_override = false
  weights = {
    passing = 5
    warning = 1
  }
  checks = [
    {
      args     = ["/usr/local/bin/check_redis.py"]
      interval = "10s"
      timeout  = "5s"
    },
    {
      id   = "redis-tcp"
      name = "port"
      tcp  = "127.0.0.1:6379"
      interval = "10s"
    }
  ]
  token = "3a7e-redis-token"
}
