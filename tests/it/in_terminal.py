"""Runs a program as a job of a terminal of its own, as a shell does, and ends as it has ended:

    python3 tests/it/in_terminal.py FOLDER foreground|background PROGRAM [ARGS]...

Its standard error is the terminal; what that shows goes to the file `screen` in FOLDER. Jobs in the background that write
to it are stopped (`stty tostop`). SIGTERM is passed on.
"""

import ctypes
import fcntl
import os
import signal
import sys
import termios

PR_SET_PDEATHSIG = 1


def become(terminal, how, command):
    os.setpgid(0, 0)
    if how == "foreground":
        # Whoever is in the background must not ask for that.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(terminal, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(terminal, 2)
    os.close(terminal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.execvp(command[0], command)


def main(folder, how, *command):
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST
    settings[3] |= termios.TOSTOP
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    program = os.fork()
    if program == 0:
        os.close(ours)
        become(theirs, how, command)
    os.close(theirs)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(program, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    with open(os.path.join(folder, "screen"), "wb", buffering=0) as screen:
        while True:
            try:
                screen.write(os.read(ours, 65536))
            except OSError:
                break  # EIO: nobody has it open any more.
    _, status = os.waitpid(program, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


main(*sys.argv[1:])
