# SPDX-License-Identifier: GPL-2.0-only
"""What nutcracker lets through of the text protocol."""

from check import HOST, P, PORT, done, eq, true
from pymemcache.client.base import Client

c = Client((HOST, PORT), timeout=20, no_delay=True)
k = lambda name: P + name
many = {k(f"m{i}"): b"v%d" % i for i in range(500)}
for key, value in many.items():
    true(c.set(key, value, noreply=False))
eq(c.get_many(list(many) + [k("none")]), many)
eq(sorted(c.gets_many(list(many)[:50])), sorted(list(many)[:50]))
eq(c.add(k("m1"), b"x", noreply=False), False)
eq(c.replace(k("m1"), b"5", noreply=False), True)
eq(c.incr(k("m1"), 5), 10)
eq(c.decr(k("m1"), 4), 6)
eq(c.append(k("m2"), b"+", noreply=False), True)
eq(c.prepend(k("m2"), b"-", noreply=False), True)
eq(c.get(k("m2")), b"-v2+")
value, cas = c.gets(k("m3"))
eq(c.cas(k("m3"), b"new", cas), True)
eq(c.cas(k("m3"), b"newer", cas), False)
eq(c.touch(k("m3"), 100, noreply=False), True)
true(c.set(k("big"), b"x" * 500000, noreply=False))
eq(c.get(k("big")), b"x" * 500000)
for key in many:
    eq(c.delete(key, noreply=False), True)
eq(c.get_many(list(many)), {})
done("nutcracker")
