"""A sweep: one scenario at many points, each simulated once, wherever there is a processor free."""
