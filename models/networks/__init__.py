"""Multi-exit networks: backbones, where exits can be, branches, and how a network is cut."""
