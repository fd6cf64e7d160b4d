"""Recorded load: public trace sets and the daemon's own history, brought to the one shape of ``cluster.trace.Trace``."""
