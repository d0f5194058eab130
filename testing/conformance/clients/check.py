# SPDX-License-Identifier: GPL-2.0-only
"""What the Python scripts share: the server's address, and checks that fail loudly."""

import sys
import uuid

HOST, PORT = sys.argv[1].rsplit(":", 1)
PORT = int(PORT)
# Keys of this run: the server may hold others.
P = "c" + uuid.uuid4().hex[:8] + ":"
checks = 0


def eq(got, want):
    global checks
    checks += 1
    if got != want:
        raise AssertionError(f"got {got!r}, not {want!r}")


def true(got):
    global checks
    checks += 1
    if not got:
        raise AssertionError(f"got {got!r}")


def fails(kind, call):
    global checks
    checks += 1
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind} was expected")


def done(name):
    print(f"{name}: {checks} checks passed")
