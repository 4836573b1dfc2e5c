"""Runs a program for which the kernel refuses some system calls, as an older one or a container's profile does:

    python3 tests/it/refuse.py ERRNO NUMBER,NUMBER... PROGRAM [ARGS]...

What the program starts is refused them, too.
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

error, numbers, *command = sys.argv[1:]
numbers = [int(number) for number in numbers.split(",")]
# Load the number of the call; each that is refused jumps to the last line (struct sock_filter).
code = [(0x20, 0, 0, 0)]
code += [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
code += [(0x06, 0, 0, ALLOW), (0x06, 0, 0, ERRNO | int(error))]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(PR_SET_SECCOMP, FILTER, header, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "seccomp")
os.execvp(command[0], command)
