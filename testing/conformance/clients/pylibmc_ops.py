# SPDX-License-Identifier: GPL-2.0-only
"""Every operation of pylibmc (libmemcached), text and binary."""

import time

import pylibmc
from check import HOST, P, PORT, done, eq, fails, true

for binary in (False, True):
    c = pylibmc.Client([f"{HOST}:{PORT}"], binary=binary, behaviors={"tcp_nodelay": True, "cas": True})
    k = lambda name: f"{P}{binary}{name}"
    true(c.set(k("a"), "1"))
    eq(c.get(k("a")), "1")
    eq(c.get(k("none")), None)
    eq(c.add(k("a"), "2"), False)
    eq(c.add(k("b"), "2"), True)
    eq(c.replace(k("b"), "3"), True)
    replaced = None
    try:
        replaced = c.replace(k("none"), "3")
    except pylibmc.NotFound:
        pass
    true(not replaced)
    eq(c.append(k("b"), "4"), True)
    eq(c.prepend(k("b"), "2"), True)
    eq(c.get(k("b")), "234")
    c.set(k("n"), 10)
    eq(c.incr(k("n")), 11)
    eq(c.incr(k("n"), 9), 20)
    eq(c.decr(k("n"), 5), 15)
    eq(c.get(k("n")), 15)
    fails(pylibmc.NotFound, lambda: c.incr(k("none")))
    value, cas = c.gets(k("a"))
    eq(value, "1")
    eq(c.cas(k("a"), "2", cas), True)
    eq(c.cas(k("a"), "3", cas), False)
    eq(c.set_multi({k(f"m{i}"): i for i in range(100)}), [])
    eq(c.get_multi([k(f"m{i}") for i in range(101)]), {k(f"m{i}"): i for i in range(100)})
    eq(c.add_multi({k("m1"): 1, k("new"): 1}), [k("m1")])
    eq(c.incr_multi([k("m1"), k("m2")], delta=10), None)
    eq(c.get_multi([k("m1"), k("m2")]), {k("m1"): 11, k("m2"): 12})
    eq(c.delete_multi([k(f"m{i}") for i in range(100)]), True)
    eq(c.get_multi([k(f"m{i}") for i in range(100)]), {})
    eq(c.touch(k("a"), 100), True)
    eq(c.touch(k("none"), 100), False)
    eq(c.delete(k("a")), True)
    eq(c.delete(k("a")), False)
    for value in (b"bytes", "text", 5, [1, 2], {"a": 1}, None, True):
        c.set(k("o"), value)
        eq(c.get(k("o")), value)
    c.set(k("z"), "x" * 200000, min_compress_len=100)
    eq(c.get(k("z")), "x" * 200000)
    # pylibmc itself can't take an empty value.
    for size in (1, 1000, 100000, 1000000):
        c.set(k("big"), b"x" * size)
        eq(c.get(k("big")), b"x" * size)
    true(c.set(k("short"), "1", time=1))
    time.sleep(2.1)
    eq(c.get(k("short")), None)
    (server, stats), = c.get_stats()
    true("curr_items" in {s.decode() if isinstance(s, bytes) else s for s in stats})
    c.get_stats("settings")
    plain = pylibmc.Client([f"{HOST}:{PORT}"], binary=binary)
    plain.behaviors = {"no_block": True, "tcp_nodelay": True, "buffer_requests": False}
    true(plain.set(k("nb"), "1"))
    eq(plain.get(k("nb")), "1")
    true(c.flush_all())
    c.disconnect_all()
done("pylibmc")
