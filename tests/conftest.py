"""What holds for all tests."""

import atexit
import os
import shutil
import signal
import tempfile

# what jobs remember for the next ones is no matter of the user who runs the tests, and of this run
if "PYTEST_CACHE_HOME" not in os.environ:
    os.environ["PYTEST_CACHE_HOME"] = tempfile.mkdtemp(prefix="hpc_train-tests-")
    atexit.register(shutil.rmtree, os.environ["PYTEST_CACHE_HOME"], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = os.environ["PYTEST_CACHE_HOME"]

# A shell without job control starts what runs in the background with SIGINT ignored, and every
# process below inherits that: stories about Ctrl-C would wait for ever. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
