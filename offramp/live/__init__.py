"""Live runs: edge nodes, virtual devices, a broker, and all of them together."""
