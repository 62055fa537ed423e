"""Finished runs beside each other: what differs between their scenarios, and what came of it."""
