# SPDX-License-Identifier: GPL-2.0-only
"""Every operation of python-binary-memcached."""

import time

import bmemcached
from check import HOST, P, PORT, done, eq, true

for make in (bmemcached.Client, bmemcached.ReplicatingClient, bmemcached.DistributedClient):
    c = make((f"{HOST}:{PORT}",))
    k = lambda name: P + make.__name__ + name
    eq(c.set(k("a"), "1"), True)
    eq(c.get(k("a")), "1")
    eq(c.get(k("none")), None)
    eq(c.get(k("none"), "d"), "d")
    eq(c.add(k("a"), "2"), False)
    eq(c.add(k("b"), "2"), True)
    eq(c.replace(k("b"), "3"), True)
    eq(c.replace(k("none"), "3"), False)
    value, cas = c.gets(k("a"))
    eq(value, "1")
    eq(c.cas(k("a"), "2", cas), True)
    eq(c.cas(k("a"), "3", cas), False)
    eq(c.set_multi({k(f"m{i}"): str(i) for i in range(50)}), [])
    eq(c.get_multi([k(f"m{i}") for i in range(51)]), {k(f"m{i}"): str(i) for i in range(50)})
    c.set(k("n"), "10")
    eq(c.incr(k("i"), 5), 0)
    eq(c.incr(k("i"), 5), 5)
    eq(c.decr(k("i"), 2), 3)
    eq(c.decr(k("d"), 2, default=7), 7)
    eq(c.delete(k("a")), True)
    eq(c.get(k("a")), None)
    eq(c.delete_multi([k("m1"), k("m2")]), True)
    for value in (b"bytes", "text", 5, [1, 2], {"a": 1}, True, "x" * 500000, b"y" * 900000):
        eq(c.set(k("o"), value, compress_level=1), True)
        eq(c.get(k("o")), value)
    eq(c.set(k("short"), "1", time=1), True)
    time.sleep(2.1)
    eq(c.get(k("short")), None)
    (stats,) = c.stats().values()
    true("curr_items" in stats)
    (settings,) = c.stats("settings").values()
    true("maxbytes" in settings)
    eq(c.flush_all(), True)
    c.disconnect_all()
done("python-binary-memcached")
