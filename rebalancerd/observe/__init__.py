"""Telemetry in: libvirt bulk statistics, dirty-rate probe, host agent → Snapshot and History."""
