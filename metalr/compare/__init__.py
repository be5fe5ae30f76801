"""Schedulers held against each other: plans, runs, statistics."""
