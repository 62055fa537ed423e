"""What devices send: when, how much, which samples, with which deadlines."""
