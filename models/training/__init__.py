"""Training: regimes, losses, and curricula: who is easy, in which order, how fast."""
