"""A simulated cluster behind the same ports on virtual time: fault injection, scenario runner, synthetic clusters.

Only the ports differ: the code of every other room runs on it unchanged.
"""
