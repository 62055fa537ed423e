"""The cheapest configuration that meets a target: searched, verified, and told."""
