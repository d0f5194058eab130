#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Runs stock clients against a server, each with every operation that it has.
# usage: run.sh ROOT "HOST:PORT [HOST:PORT]" [NAME…]
# The proxy stands in front of both servers. ROOT is made by setup.sh if it is not there.
# `suites` runs the clients' own tests, those that SUITES names if it is set. All flush the
# server. Nothing is left in ROOT but what Go has compiled.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$1
server=${2%% *}
second=${2##* }
shift 2
out=$(mktemp)
trap 'rm -f "$out"' EXIT
sh "$here/setup.sh" "$root" > "$out" 2>&1 || { tail -20 "$out"; exit 1; }

all='libmemcached memcached_tool pymemcache_ops pylibmc_ops bmemcached_ops python_memcached_ops
    aiomcache_ops memcached_ops memcache_ops gomemcache_ops dalli_ops perl_ops nutcracker'
passed=0
failed=0
for name in ${*:-$all}; do
    # The suites take longer than a client, and end with the output of each file that failed.
    if [ "$name" = suites ]; then limit=1500 lines=5000; else limit=300 lines=25; fi
    file=$(cd "$here" && ls "$name".*)
    case $file in
    *.py) command="python3 $file $server" ;;
    *.php) command="php $file $server" ;;
    *.rb) command="ruby $file $server" ;;
    *.pl) command="perl $file $server" ;;
    *.go) command="go run $file $server" ;;
    suites.sh) command="sh $file $server ${SUITES:-}" ;;
    *.sh) command="sh $file $server $second" ;;
    esac
    # In a mount namespace of its own, so that nothing stays mounted whatever happens.
    if unshare --mount sh -c "
        mount --rbind /proc '$root/proc' && mount --rbind /dev '$root/dev' &&
        mount -t tmpfs tmpfs '$root/tmp' && mkdir -p '$root/tmp/clients' &&
        mount --bind '$here' '$root/tmp/clients' &&
        GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=/var/cache/go PYTHONDONTWRITEBYTECODE=1 \
        exec chroot '$root' sh -c 'cd /tmp/clients && exec timeout $limit $command'
    " > "$out" 2>&1; then
        passed=$((passed + 1))
        tail -1 "$out"
    else
        failed=$((failed + 1))
        echo "$name FAILED"
        tail -$lines "$out" | sed 's/^/    /'
    fi
done
echo "clients: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
