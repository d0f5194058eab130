<?php
// SPDX-License-Identifier: GPL-2.0-only
// Every operation of PHP's memcache extension (not libmemcached): text and binary.

[$host, $port] = explode(':', $argv[1]);
$checks = 0;
function eq($got, $want)
{
    global $checks;
    $checks++;
    if ($got !== $want) {
        throw new Exception('got ' . var_export($got, true) . ', not ' . var_export($want, true));
    }
}
$run = 'c' . bin2hex(random_bytes(4)) . ':';

foreach (['ascii', 'binary'] as $protocol) {
    ini_set('memcache.protocol', $protocol);
    $m = new MemcachePool();
    eq($m->addServer($host, (int) $port), true);
    $k = fn ($name) => "$run$protocol$name";
    eq($m->set($k('a'), '1'), true);
    eq($m->get($k('a')), '1');
    eq($m->get($k('none')), false);
    eq($m->add($k('a'), '2'), false);
    eq($m->add($k('b'), '2'), true);
    eq($m->replace($k('b'), '3'), true);
    eq($m->append($k('b'), '4'), true);
    eq($m->prepend($k('b'), '2'), true);
    eq($m->get($k('b')), '234');
    eq($m->set($k('n'), 10), true);
    eq($m->increment($k('n'), 5), 15);
    eq($m->decrement($k('n'), 6), 9);
    $keys = [];
    for ($i = 0; $i < 100; $i++) {
        eq($m->set($k("m$i"), "v$i", 0, 100), true);
        $keys[] = $k("m$i");
    }
    eq(count($m->get($keys)), 100);
    $flags = $cas = null;
    eq($m->get($k('a'), $flags, $cas), '1');
    eq($m->cas($k('a'), '2', 0, 0, $cas), true);
    eq($m->cas($k('a'), '3', 0, 0, $cas), false);
    foreach (["text", 1, true, [1, 2], str_repeat('x', 900000)] as $value) {
        eq($m->set($k('o'), $value), true);
        eq($m->get($k('o')), $value);
    }
    eq($m->set($k('z'), str_repeat('xyz', 10000), MEMCACHE_COMPRESSED), true);
    eq($m->get($k('z')), str_repeat('xyz', 10000));
    eq($m->delete($k('a')), true);
    eq($m->get($k('a')), false);
    eq(is_string($m->getVersion()), true);
    if ($protocol === 'ascii') {
        eq(isset($m->getStats()['curr_items']), true);
        eq(isset($m->getExtendedStats()["$host:$port"]['curr_items']), true);
    }
    eq($m->flush(), true);
    $m->close();
}
echo "php memcache: $checks checks passed\n";
