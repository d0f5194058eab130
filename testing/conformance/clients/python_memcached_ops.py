# SPDX-License-Identifier: GPL-2.0-only
"""Every operation of python-memcached."""

import time

import memcache
from check import HOST, P, PORT, done, eq, fails, true

c = memcache.Client([f"{HOST}:{PORT}"], cache_cas=True, socket_timeout=20)
k = lambda name: P + name
true(c.set(k("a"), "1"))
eq(c.get(k("a")), "1")
eq(c.get(k("none")), None)
true(not c.add(k("a"), "2"))
true(c.add(k("b"), "2"))
true(c.replace(k("b"), "3"))
true(not c.replace(k("none"), "3"))
true(c.append(k("b"), "4"))
true(c.prepend(k("b"), "2"))
eq(c.get(k("b")), "234")
true(c.set(k("n"), 10))
eq(c.incr(k("n"), 5), 15)
eq(c.decr(k("n"), 20), 0)
eq(c.incr(k("none")), None)
eq(c.set_multi({str(i): i for i in range(100)}, key_prefix=k("m")), [])
eq(c.get_multi([str(i) for i in range(101)], key_prefix=k("m")), {str(i): i for i in range(100)})
eq(c.gets(k("a")), "1")
true(c.cas(k("a"), "2"))
other = memcache.Client([f"{HOST}:{PORT}"])
c.gets(k("a"))
other.set(k("a"), "3")
true(not c.cas(k("a"), "4"))
true(c.touch(k("a"), 100))
true(c.delete(k("a")))
true(c.delete_multi([k("m1"), k("m2")]))
for value in (b"bytes", "text", 5, [1, 2], {"a": 1}, True, "x" * 500000):
    true(c.set(k("o"), value))
    eq(c.get(k("o")), value)
true(c.set(k("z"), "x" * 100000, min_compress_len=10))
eq(c.get(k("z")), "x" * 100000)
true(c.set(k("short"), "1", time=1))
time.sleep(2.1)
eq(c.get(k("short")), None)
fails(memcache.Client.MemcachedKeyLengthError, lambda: c.get("k" * 251))
((_, stats),) = c.get_stats()
true("curr_items" in {getattr(s, "decode", lambda: s)() for s in stats})
c.get_slab_stats()
c.get_stats("items")
c.flush_all()
c.disconnect_all()
done("python-memcached")
