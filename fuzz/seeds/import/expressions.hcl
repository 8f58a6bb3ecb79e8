service {
  name = "templated-${var.env}"
  port = 80
}
service {
  name = "computed"
  port = 8000 + 80
  tags = [local.tag, "plain"]
}
service {
  name = "heredoc"
  port = 80
  meta = {
    text = <<EOT
two
lines
EOT
  }
}
