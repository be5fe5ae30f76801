"""Compare schedulers: plans, runs, criteria, aggregates."""
