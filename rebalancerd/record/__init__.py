"""The ledger: cycles, decisions, plans, migrations, outcomes, commands; and explanations out of it."""
