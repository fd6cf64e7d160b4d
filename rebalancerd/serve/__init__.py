"""Prometheus metrics and the REST API on a UNIX socket."""
