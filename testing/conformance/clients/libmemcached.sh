#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# libmemcached's own test of a server, and each of its tools.
set -eu
server=$1
host=${server%:*}
port=${server##*:}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

for protocol in -a -b; do
    memccapable -h "$host" -p "$port" "$protocol" -T 20 > "$dir/out" 2>&1 || { cat "$dir/out"; exit 1; }
    grep -q 'All tests passed' "$dir/out" || { cat "$dir/out"; exit 1; }
done
cd "$dir"
memcping --servers="$server"
echo hello > "one-$$"
head -c 700000 /dev/zero > "two-$$"
for protocol in "" --binary; do
    memccp --servers="$server" $protocol --set "one-$$" "two-$$"
    memccat --servers="$server" $protocol "one-$$" > got
    head -c 5 got | cmp - one-$$ -n 5
    memcexist --servers="$server" $protocol "one-$$"
    memctouch --servers="$server" $protocol --expire=100 "one-$$"
    memcstat --servers="$server" $protocol | grep -q curr_items
    memcrm --servers="$server" $protocol "one-$$"
    if memcexist --servers="$server" $protocol "one-$$"; then echo "it is still there"; exit 1; fi
    memcslap --servers="$server" $protocol --concurrency=2 --execute-number=300 --test=set > /dev/null
    memcslap --servers="$server" $protocol --concurrency=2 --execute-number=300 --test=get > /dev/null
    memcslap --servers="$server" $protocol --concurrency=2 --execute-number=300 --test=mget > /dev/null
    memcflush --servers="$server" $protocol
done
memccp --servers="$server" --set "one-$$"
memcdump --servers="$server" > dumped || true
memcaslap --servers="$server" --threads=1 --concurrency=4 --time=2s --verify=1.0 > out
grep -q 'TPS' out
memcaslap --servers="$server" --threads=1 --concurrency=4 --time=2s --binary > out
grep -q 'TPS' out
echo "libmemcached: all tools passed"
