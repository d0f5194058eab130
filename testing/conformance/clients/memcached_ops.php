<?php
// SPDX-License-Identifier: GPL-2.0-only
// Every operation of PHP's memcached extension (libmemcached): text, binary, and gets over UDP.

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

foreach ([false, true] as $binary) {
    $m = new Memcached();
    $m->setOption(Memcached::OPT_BINARY_PROTOCOL, $binary);
    $m->setOption(Memcached::OPT_TCP_NODELAY, true);
    $m->setOption(Memcached::OPT_PREFIX_KEY, $run . ($binary ? 'b' : 't'));
    $m->addServer($host, (int) $port);
    eq($m->set('a', '1'), true);
    eq($m->get('a'), '1');
    eq($m->get('none'), false);
    eq($m->getResultCode(), Memcached::RES_NOTFOUND);
    eq($m->add('a', '2'), false);
    eq($m->getResultCode(), $binary ? Memcached::RES_DATA_EXISTS : Memcached::RES_NOTSTORED);
    eq($m->add('b', '2'), true);
    eq($m->replace('b', '3'), true);
    eq($m->replace('none', '3'), false);
    $m->setOption(Memcached::OPT_COMPRESSION, false);
    eq($m->set('s', 'b'), true);
    eq($m->append('s', 'c'), true);
    eq($m->prepend('s', 'a'), true);
    eq($m->get('s'), 'abc');
    eq($m->append('none', 'c'), false);
    eq($m->set('n', 10), true);
    eq($m->increment('n'), 11);
    eq($m->increment('n', 9), 20);
    eq($m->decrement('n', 5), 15);
    eq($m->increment('none'), false);
    if ($binary) {
        eq($m->increment('new', 1, 42, 100), 42);
        eq($m->decrement('new2', 1, 42, 100), 42);
    }
    $many = [];
    for ($i = 0; $i < 300; $i++) {
        $many["m$i"] = $i;
    }
    eq($m->setMulti($many, 100), true);
    $got = $m->getMulti(array_merge(array_keys($many), ['none']));
    ksort($got);
    ksort($many);
    eq($got, $many);
    $extended = $m->getMulti(['m1', 'm2'], Memcached::GET_EXTENDED);
    eq($extended['m1']['value'], 1);
    $item = $m->get('a', null, Memcached::GET_EXTENDED);
    eq($item['value'], '1');
    eq($m->cas($item['cas'], 'a', '2'), true);
    eq($m->cas($item['cas'], 'a', '3'), false);
    eq($m->getResultCode(), Memcached::RES_DATA_EXISTS);
    eq($m->getDelayed(['m1', 'm2'], true), true);
    eq(count($m->fetchAll()), 2);
    eq($m->touch('a', 100), true);
    eq($m->touch('none', 100), false);
    eq($m->delete('a'), true);
    eq($m->delete('a'), false);
    eq($m->deleteMulti(['m1', 'm2']), ['m1' => true, 'm2' => true]);
    foreach (["text", 1, 2.5, true, [1, 'a' => null], str_repeat('x', 900000), ''] as $value) {
        eq($m->set('o', $value), true);
        eq($m->get('o'), $value);
    }
    $m->setOption(Memcached::OPT_COMPRESSION, true);
    eq($m->set('z', str_repeat('xyz', 100000)), true);
    eq($m->get('z'), str_repeat('xyz', 100000));
    eq($m->set('short', '1', 1), true);
    eq($m->set('gone', '1', time() - 100), true);
    eq($m->get('gone'), false);
    sleep(3);
    eq($m->get('short'), false);
    $m->setOption(Memcached::OPT_NOREPLY, true);
    eq($m->set('q', '1'), true);
    $m->setOption(Memcached::OPT_NOREPLY, false);
    eq($m->get('q'), '1');
    $m->setOption(Memcached::OPT_BUFFER_WRITES, true);
    eq(in_array($m->set('w', '1'), [true], true), true);
    eq($m->flushBuffers(), true);
    $m->setOption(Memcached::OPT_BUFFER_WRITES, false);
    eq($m->get('w'), '1');
    eq(isset($m->getStats()["$host:$port"]['curr_items']), true);
    eq(count($m->getVersion()), 1);
    eq($m->flush(), true);
    $m->quit();
}
echo "php memcached: $checks checks passed\n";
