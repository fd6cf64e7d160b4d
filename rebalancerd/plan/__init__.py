"""What to do about it: constraints, objective, balance, drain, step order. Pure; imports ``cluster`` only."""
