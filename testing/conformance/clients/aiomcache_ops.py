# SPDX-License-Identifier: GPL-2.0-only
"""Every operation of aiomcache."""

import asyncio

import aiomcache
from check import HOST, P, PORT, done, eq, true


async def main():
    c = aiomcache.Client(HOST, PORT, pool_size=4)
    k = lambda name: (P + name).encode()
    true(await c.set(k("a"), b"1"))
    eq(await c.get(k("a")), b"1")
    eq(await c.get(k("none")), None)
    eq(await c.get(k("none"), default=b"d"), b"d")
    true(not await c.add(k("a"), b"2"))
    true(await c.add(k("b"), b"2"))
    true(await c.replace(k("b"), b"3"))
    true(not await c.replace(k("none"), b"3"))
    true(await c.append(k("b"), b"4"))
    true(await c.prepend(k("b"), b"2"))
    eq(await c.multi_get(k("a"), k("none"), k("b")), (b"1", None, b"234"))
    value, cas = await c.gets(k("a"))
    true(await c.cas(k("a"), b"2", cas))
    true(not await c.cas(k("a"), b"3", cas))
    eq(await c.incr(k("a"), 5), 7)
    eq(await c.decr(k("a"), 3), 4)
    try:
        await c.incr(k("none"), 3)
        raise AssertionError("incr of nothing")
    except aiomcache.ClientException:
        pass
    true(await c.touch(k("a"), 100))
    true(await c.delete(k("a")))
    true(not await c.delete(k("a")))
    await asyncio.gather(*(c.set(k(f"m{i}"), b"%d" % i) for i in range(200)))
    values = await asyncio.gather(*(c.get(k(f"m{i}")) for i in range(200)))
    eq(values, [b"%d" % i for i in range(200)])
    true(await c.set(k("big"), b"x" * 900000))
    eq(await c.get(k("big")), b"x" * 900000)
    true(b"curr_items" in await c.stats())
    true(b"maxbytes" in await c.stats(b"settings"))
    true(await c.version())
    await c.flush_all()
    await c.close()


asyncio.run(main())
done("aiomcache")
