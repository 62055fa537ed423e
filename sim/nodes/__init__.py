"""Nodes: queues, workers, batches, and how long each of them takes."""
