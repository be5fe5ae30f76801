"""Processes, hosts, memory, progress and files."""
