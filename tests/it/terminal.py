"""Runs a program in a terminal of its own, which is closed when there is a file:

    python3 tests/it/terminal.py FILE default|ignored PROGRAM [ARGS]...

Where there is a file `ctrl-c` beside FILE, that key is pressed once.

The program leads the terminal's session, as a shell's `exec` would have it. Its streams stay what they are. `ignored`:
it ignores SIGHUP from the start, as under nohup(1).
"""

import fcntl
import os
import signal
import sys
import termios
import time


def main(file, hangup, *command):
    ours, theirs = os.openpty()
    os.setsid()
    # This process gets the signal when the last descriptor of the other end is closed (tty_ioctl(4)).
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    if os.fork() == 0:
        # The child's child holds the other end, so that the program has no child that it does not know.
        if os.fork() == 0:
            # Nobody waits for the end of what this process could write.
            null = os.open(os.devnull, os.O_RDWR)
            [os.dup2(null, stream) for stream in range(3)]
            os.setsid()
            os.close(theirs)
            # Also when the test is over and took its folder away.
            ctrl_c = os.path.join(os.path.dirname(file), "ctrl-c")
            while os.path.isdir(os.path.dirname(file)) and not os.path.exists(file):
                if os.path.exists(ctrl_c):
                    os.unlink(ctrl_c)
                    os.write(ours, b"\x03")
                time.sleep(0.005)
        os._exit(0)
    os.wait()
    os.close(ours)
    os.close(theirs)
    if hangup == "ignored":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.execvp(command[0], command)


main(*sys.argv[1:])
