# SPDX-License-Identifier: GPL-2.0-only
# Every operation of Perl's Cache::Memcached, Cache::Memcached::Fast and Memcached::libmemcached.
use strict;
use warnings;
use Test::More;
use Cache::Memcached;
use Cache::Memcached::Fast;
use Memcached::libmemcached;

my $server = $ARGV[0];
my ($host, $port) = split /:/, $server;
my @clients = (
    Cache::Memcached->new({servers => [$server], compress_threshold => 10_000}),
    Cache::Memcached::Fast->new({servers => [$server], utf8 => 1, io_timeout => 20}),
    Cache::Memcached::Fast->new({servers => [$server], nowait => 1, io_timeout => 20}),
);
for my $c (@clients) {
    my $run = "c$$" . ref($c) . int(rand 1e9) . ":";
    my $fast = ref($c) =~ /Fast/;
    my $k = sub { $run . shift };
    ok($c->set($k->("a"), 1), "set");
    is($c->get($k->("a")), 1, "get");
    is($c->get($k->("none")), undef, "miss");
    ok(!$c->add($k->("a"), 2), "add again");
    ok($c->add($k->("b"), 2), "add");
    ok($c->replace($k->("b"), 3), "replace");
    ok(!$c->replace($k->("none"), 3), "replace nothing");
    ok($c->append($k->("b"), 4), "append");
    ok($c->prepend($k->("b"), 2), "prepend");
    is($c->get($k->("b")), 234, "joined");
    is($c->incr($k->("a"), 10), 11, "incr");
    is($c->decr($k->("a"), 4), 7, "decr");
    $c->set($k->("m$_"), $_) for 1 .. 300;
    my $got = $c->get_multi(map { $k->("m$_") } 1 .. 301);
    is(scalar(keys %$got), 300, "get_multi");
    $c->set($k->("ref"), {a => [1, 2]});
    is_deeply($c->get($k->("ref")), {a => [1, 2]}, "structure");
    $c->set($k->("big"), "x" x 900_000);
    is(length $c->get($k->("big")), 900_000, "large");
    $c->set($k->("a"), 7);
    if ($fast) {
        my $cas = $c->gets($k->("a"));
        is($cas->[1], 7, "gets");
        ok($c->cas($k->("a"), $cas->[0], 8), "cas");
        ok(!$c->cas($k->("a"), $cas->[0], 9), "cas again");
        ok($c->touch($k->("a"), 100), "touch");
        is($c->gat(100, $k->("a")), 8, "gat") if $c->can("gat");
        $c->set_multi(map { [$k->("s$_"), $_] } 1 .. 50);
        is(scalar(keys %{$c->gets_multi(map { $k->("s$_") } 1 .. 50)}), 50, "gets_multi");
        ok($c->server_versions->{$server}, "version");
        $c->nowait_push;
    } else {
        ok($c->stats, "stats");
    }
    ok($c->delete($k->("a")), "delete");
    is($c->get($k->("a")), undef, "deleted");
    $c->set($k->("short"), 1, 1);
    sleep 3;
    is($c->get($k->("short")), undef, "expired");
    ok($c->flush_all, "flush_all");
    $c->disconnect_all;
}

my $m = Memcached::libmemcached->new;
ok($m->memcached_server_add($host, $port), "server");
my $k = "l$$" . int(rand 1e9);
ok($m->memcached_set($k, "1", 0, 5), "set");
is($m->memcached_get($k, my $flags), "1", "get");
is($flags, 5, "flags");
ok(!$m->memcached_add($k, "2"), "add");
ok($m->memcached_append($k, "2"), "append");
ok($m->memcached_prepend($k, "0"), "prepend");
ok($m->memcached_increment($k, 1, my $value = 0), "increment");
is($value, 13, "incremented");
ok($m->memcached_decrement($k, 1, $value), "decrement");
ok($m->memcached_mget([$k, "$k-none"]), "mget");
my ($key, $f, $rc) = ("", 0, 0);
is($m->memcached_fetch($key, $f, $rc), "12 ", "fetch, padded by decrement");
ok($m->memcached_delete($k), "delete");
ok($m->memcached_version, "version");
ok($m->memcached_flush(0), "flush");
done_testing;
print "perl: all passed\n" if Test::More->builder->is_passing;
