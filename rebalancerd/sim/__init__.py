"""A simulated cluster behind the same ports, on virtual time, with fault injection and a scenario runner."""
