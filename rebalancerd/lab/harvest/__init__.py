"""Harvest of labelled migrations: real ones, of many workloads, over many links, with what the daemon knew before each."""
