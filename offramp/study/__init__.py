"""A study: one grid of configurations, trained by every strategy and seed, and compared."""
