"""Runs a program as process 1 of a namespace of its own, passes SIGTERM on to it, and ends as it has ended:

    python3 tests/it/process1.py PROGRAM [ARGS]...
"""

import ctypes
import os
import signal
import sys

NEW_PIDS = 0x20000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(NEW_PIDS) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
child = os.fork()
if child == 0:
    # With it all of the namespace ends.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.execvp(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
