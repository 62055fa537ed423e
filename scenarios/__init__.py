"""Scenarios that ship with Offramp, as package data: YAML only."""
