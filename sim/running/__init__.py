"""A run in progress: the engines that take a world from its first request to its last."""
