"""Cheap runs of many kinds: problems that train in seconds, swept over rates."""
