"""What holds for all tests."""

import signal

# A shell's background job ignores Ctrl-C, and what it starts inherits that: tests send Ctrl-C to
# processes that are to hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)
