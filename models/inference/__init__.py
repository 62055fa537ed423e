"""Running trained networks: runtimes, what they predict, and how long they take."""
