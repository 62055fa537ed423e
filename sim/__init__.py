"""The world in SimPy: workloads, links, nodes, policies, records, metrics. Never imports torch."""
