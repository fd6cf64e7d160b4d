"""May this step start now? Freshness, windows, budgets, cooldowns, breaker, approvals. Pure; imports ``cluster`` only."""
