"""Simulated against live: the same requests in both worlds, and how far apart they end."""
