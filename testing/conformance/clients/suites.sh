#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Runs inside the root: the test suites of memcached and of its clients, as far as they need
# no more than a server, against one at HOST:PORT.
# usage: suites.sh HOST:PORT [NAME…]
set -u
server=$1
host=${server%:*}
port=${server##*:}
shift
# A copy: some of them are changed on the way.
src=/tmp/src
cp -r /src "$src"
. "$(dirname "$0")/suite.sh"

# Removes all items and gives the server time to free their memory. flush_all spares items that were set within the same
# second.
empty_server() {
    perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new($ARGV[0]) or die;
        select undef, undef, undef, 1.2; print $s "flush_all\r\n"; <$s>;
        select undef, undef, undef, 0.3;' "$server"
}

# memcached's own tests. Left out are those that start a server with special arguments, that
# look into the memory of one that is fresh, or that need its debugging build. In some of them
# a part is left out or changed:
# - metaget.t: the end needs storage on flash.
# - watcher.t: `-W`, a server that refuses to be watched, is an option that Hippos has not. The
#   count of watchers needs a server without other watchers: the one of before is closed. One
#   SET need not evict, since slots are kept in reserve and refilled by several evictions at
#   once: 500 SETs are watched instead.
# - watcher_connid.t takes the last row of `stats conns` for its own connection. Here a new one may
#   come before others: it looks for its port.
memcached() {
    cd $src/memcached-1.6.38 || return
    for t in binary-get bogus-commands cas chunked-items flags getandtouch getset incrdecr \
        issue_108 issue_140 issue_152 issue_192 issue_260 issue_3 issue_41 issue_68 \
        issue_70 line-lengths malicious-commands metaget multiversioning noreply quit refhang \
        slabhang strtol-testing touch watcher watcher_connid; do
        # They assume that their keys are new.
        empty_server
        sed -e 's/^# Do a basic extstore test.*/done_testing(); exit 0;/' \
            -e '/^# test no_watch option/,/^}/d' -e 's/^plan tests => 43;/plan tests => 42;/' \
            -e 's/^# test watcher stats/$watcher->close(); sleep 1;/' \
            -e 's/^ *\(print $client "set bfoo\) \(.*\);/\1$_ \2 for 1 .. 500; print $client "version\\r\\n"; <$client>;/' \
            -e 's/^while (<\($client_[a-z]*\)>) {/while (<\1>) { next unless m{^END|:@{[\1->sockport]}\\r};/' \
            "t/$t.t" > "t/$t-here.t"
        suite "memcached t/$t.t" env T_MEMD_USE_DAEMON="$server" perl -Ilib "t/$t-here.t"
    done
}

pymemcache() {
    cd $src/python-pymemcache-* || return
    suite "pymemcache's integration tests" python3 -m pytest pymemcache/test/test_integration.py \
        -q -p no:cacheprovider -o addopts= "--server=$host" "--port=$port" -m integration
}

pylibmc() {
    # The tests, not the sources of the module, which is installed.
    rm -rf /tmp/pylibmc && mkdir -p /tmp/pylibmc && cp -r $src/pylibmc-*/tests /tmp/pylibmc
    cd /tmp/pylibmc || return
    suite "pylibmc's tests" env MEMCACHED_HOST="$host" MEMCACHED_PORT="$port" python3 -m pytest -q -p no:cacheprovider tests \
        --ignore tests/test_autoconf.py
}

gomemcache() {
    rm -rf /tmp/gomemcache && mkdir -p /tmp/gomemcache/src/github.com/bradfitz
    cp -r /usr/share/gocode/src/github.com/bradfitz/gomemcache /tmp/gomemcache/src/github.com/bradfitz
    cd /tmp/gomemcache/src/github.com/bradfitz/gomemcache/memcache || return
    sed -i "s/localhost:11211/$server/" memcache_test.go
    suite "gomemcache's tests" env GO111MODULE=off GOPATH=/tmp/gomemcache GOCACHE=/var/cache/go \
        go test -run 'TestLocalhost' .
}

perl_clients() {
    cd $src/Cache-Memcached-1* || return
    for t in 02_keys 03_stats 04_noreply 06_utf8_key 100_flush_bug 101_multiple_clients; do
        sed "s/127.0.0.1:11211/$server/; s/127.1:11211/127.1:$port/" "t/$t.t" > "/tmp/$t.t"
        suite "Cache::Memcached $t.t" perl -It "/tmp/$t.t"
    done
    rm -rf /tmp/fast && cp -r $src/Cache-Memcached-Fast-* /tmp/fast
    cd /tmp/fast || return
    sed -i "s/localhost:11211/$server/; s/127.0.0.1:11211/$server/" t/Memd.pm
    for t in big-value changes commands disconnect-all errors flush-all hash-namespace \
        malformed namespace noreply nowait serialize utf8 validation; do
        suite "Cache::Memcached::Fast $t.t" perl -It -It/lib "t/$t.t"
    done
    cd $src/Memcached-libmemcached-* || return
    for t in t/[1-8]*.t; do
        suite "Memcached::libmemcached $(basename "$t")" \
            env PERL_LIBMEMCACHED_TEST_SERVERS="$server" perl -It/lib "$t"
    done
}

php() {
    cd $src/memcached-3*/tests || return
    printf '<?php define("MEMC_SERVER_HOST", "%s"); define("MEMC_SERVER_PORT", %s);' "$host" "$port" \
        > config.inc.local
    # These differ with memcached too, by the versions of PHP and libmemcached, and by the
    # length of the address.
    for t in bug_18639 clone invalid_options invoke_callback options prepend rescode session_badconf_emptyprefix \
        session_badconf_persistent session_badconf_prefix session_lock-php71 setoptions \
        user-flags vbucket_error_8; do
        set -- "$@" "$t"
    done
    suite "php-memcached's tests" python3 /tmp/clients/phpt.py "$server" "$@" -- ./*.phpt
}

# In a cache that another suite has filled with small items, each of a test's values of 1 MB evicts the one before, until
# the server has found the slabs of these items unused for a second.
for name in ${*:-memcached pymemcache pylibmc gomemcache perl_clients php}; do
    empty_server
    sleep 3
    $name
done
report
