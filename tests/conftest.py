"""What holds for all tests."""

import signal

# A shell without job control starts what runs in the background with SIGINT ignored, and every
# process below inherits that: stories about Ctrl-C would wait for ever. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
