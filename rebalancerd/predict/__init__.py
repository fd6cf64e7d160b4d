"""What will be: demand scenarios, hotspots, migration cost. Pure; imports ``cluster`` only."""
