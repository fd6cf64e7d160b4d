"""Migrations: state machine, preflight, reconcile, libvirt writer."""
