# SPDX-License-Identifier: GPL-2.0-only
"""Every operation of pymemcache, over one connection, a pool and a hash of two."""

import time

from check import HOST, P, PORT, done, eq, fails, true
from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError


def operations(c, prefix):
    k = lambda name: P + prefix + name
    true(c.set(k("a"), b"1", noreply=False))
    eq(c.get(k("a")), b"1")
    eq(c.get(k("none")), None)
    eq(c.get(k("none"), b"x"), b"x")
    eq(c.add(k("a"), b"2", noreply=False), False)
    eq(c.add(k("b"), b"2", noreply=False), True)
    eq(c.replace(k("b"), b"3", noreply=False), True)
    eq(c.replace(k("none"), b"3", noreply=False), False)
    eq(c.append(k("b"), b"4", noreply=False), True)
    eq(c.prepend(k("b"), b"2", noreply=False), True)
    eq(c.get(k("b")), b"234")
    eq(c.append(k("none"), b"4", noreply=False), False)
    eq(c.set_many({k("m1"): b"1", k("m2"): b"2"}, noreply=False), [])
    eq(c.set_multi({k("m3"): b"3"}, noreply=False), [])
    keys = [k("m1"), k("m2"), k("m3"), k("none")]
    eq(c.get_many(keys), {k("m1"): b"1", k("m2"): b"2", k("m3"): b"3"})
    eq(c.get_multi(keys), {k("m1"): b"1", k("m2"): b"2", k("m3"): b"3"})
    value, cas = c.gets(k("a"))
    eq(value, b"1")
    eq(c.cas(k("a"), b"5", cas), True)
    eq(c.cas(k("a"), b"6", cas), False)
    eq(c.cas(k("none"), b"6", cas), None)
    eq(sorted(c.gets_many([k("a"), k("m1")])), sorted([k("a"), k("m1")]))
    eq(c.incr(k("a"), 5), 10)
    eq(c.decr(k("a"), 4), 6)
    eq(c.decr(k("a"), 40), 0)
    eq(c.incr(k("none"), 1), None)
    eq(c.touch(k("a"), 100, noreply=False), True)
    eq(c.touch(k("none"), 100, noreply=False), False)
    if hasattr(Client, "gat"):
        eq(c.gat(k("m1"), 100), b"1")
        eq(c.gats(k("m1"), 100)[0], b"1")
    eq(c.delete(k("m1"), noreply=False), True)
    eq(c.delete(k("m1"), noreply=False), False)
    c.delete_many([k("m2"), k("m3")], noreply=False)
    eq(c.get_many(keys), {})
    # Without replies.
    c.set(k("q"), b"1")
    c.append(k("q"), b"2")
    c.incr(k("q"), 1, noreply=True)
    eq(c.get(k("q")), b"13")
    c.delete(k("q"), noreply=True)
    eq(c.get(k("q")), None)
    # Large values, odd bytes, expiry.
    for size in (0, 1, 1023, 65536, 1000000):
        c.set(k("big"), b"x" * size, noreply=False)
        eq(c.get(k("big")), b"x" * size)
    c.set(k("bin"), bytes(range(256)) + b"\r\n", noreply=False)
    eq(c.get(k("bin")), bytes(range(256)) + b"\r\n")
    c.set(k("short"), b"1", expire=1, noreply=False)
    c.set(k("gone"), b"1", expire=-1, noreply=False)
    eq(c.get(k("gone")), None)
    time.sleep(2.1)
    eq(c.get(k("short")), None)


address = (HOST, PORT)
single = Client(address, no_delay=True, timeout=20)
operations(single, "s")
operations(PooledClient(address, max_pool_size=4, timeout=20), "p")
operations(HashClient([f"{HOST}:{PORT}"], timeout=20), "h")
operations(RetryingClient(Client(address, timeout=20), attempts=2), "r")

true(single.version())
true(single.stats()[b"curr_connections"] >= 1)
true(b"maxbytes" in single.stats("settings"))
single.stats("items")
single.stats("slabs")
true(single.cache_memlimit(64))
fails(MemcacheIllegalInputError, lambda: single.get("k" * 251))
fails(MemcacheIllegalInputError, lambda: single.get("a b"))
# The command goes out and is refused.
single.set(P + "word", b"abc", noreply=False)
fails(MemcacheClientError, lambda: single.incr(P + "word", 1))
eq(single.raw_command(b"mn", b"MN\r\n"), b"")

pickled = Client(address, serde=serde.pickle_serde, timeout=20)
for value in (1, "text", b"bytes", [1, {"a": None}], 2.5):
    pickled.set(P + "pickle", value, noreply=False)
    eq(pickled.get(P + "pickle"), value)
packed = Client(address, serde=serde.CompressedSerde(min_compress_len=10), timeout=20)
packed.set(P + "packed", b"x" * 100000, noreply=False)
eq(packed.get(P + "packed"), b"x" * 100000)
prefixed = Client(address, key_prefix=P + "prefix:", timeout=20)
prefixed.set("a", b"1", noreply=False)
eq(prefixed.get_many(["a", "b"]), {"a": b"1"})
many = {f"{P}many{i}": b"%d" % i for i in range(2000)}
eq(single.set_many(many, noreply=False), [])
eq(single.get_many(list(many)), many)
single.set_many(many, noreply=True)
single.flush_all(delay=1000000, noreply=False)
single.flush_all(noreply=False)
single.quit()
done("pymemcache")
