"""Runs a program for which accept4(2) fails with ENFILE while there is a file:

    python3 tests/it/enfile.py FILE PROGRAM [ARGS]...

The real condition, no file left on the host, would hit every other process too. Here the kernel asks another process
what to answer (seccomp_unotify(2)): so the program sees the error where it would come from, and nobody else does.
"""

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys

SECCOMP, ACCEPT4 = {"x86_64": (317, 288), "aarch64": (277, 242)}[platform.machine()]
SET_MODE_FILTER, NEW_LISTENER = 1, 8
PR_SET_NO_NEW_PRIVS = 38
ALLOW, ASK = 0x7FFF0000, 0x7FC00000
RECEIVE, SEND = 0xC0502100, 0xC0182101  # ioctls on the listener; 80 and 24 bytes
CONTINUE = 1


def filtered():
    """From here on accept4 of this process, and of what it becomes and starts, is asked about. Yields who asks."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Load the number of the call; if it is accept4, ask; else allow (struct sock_filter).
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, ACCEPT4), (0x06, 0, 0, ASK), (0x06, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    listener = libc.syscall(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def answer(listener, file):
    """Answers until everybody who could ask is gone."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not any(event & select.POLLHUP for _, event in poll.poll()):
        question = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, question)
            (number,) = struct.unpack_from("=Q", question)
            shortage = os.path.exists(file)
            reply = struct.pack("=QqiI", number, 0, -errno.ENFILE if shortage else 0, 0 if shortage else CONTINUE)
            fcntl.ioctl(listener, SEND, bytearray(reply))
        except FileNotFoundError:
            pass  # Who asked is gone.


def main(file, *command):
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        # The child's child answers, so that the program has no child that it does not know.
        if os.fork() == 0:
            ours.close()
            _, numbers, _, _ = socket.recv_fds(theirs, 1, 1)
            # Nobody waits for the end of what this process could write.
            null = os.open(os.devnull, os.O_RDWR)
            [os.dup2(null, stream) for stream in range(3)]
            answer(numbers[0], file)
        os._exit(0)
    os.wait()
    theirs.close()
    listener = filtered()
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.execvp(command[0], command)


main(*sys.argv[1:])
