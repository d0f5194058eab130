#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# memcached's own tool for operators.
set -eu
server=$1
tool=/usr/share/memcached/scripts/memcached-tool
key=tool-$$
perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new($ARGV[0]) or die "no connection";
    print $s "set $ARGV[1] 0 0 3\r\nabc\r\n";
    <$s> eq "STORED\r\n" or die "not stored";
' "$server" "$key"
perl $tool "$server" display | grep -q 'Item_Size'
perl $tool "$server" stats | grep -q curr_items
perl $tool "$server" settings | grep -q maxbytes
perl $tool "$server" sizes > /dev/null
perl $tool "$server" dump > /tmp/dump.$$ 2>/tmp/dump-said.$$
grep -q "^add $key " /tmp/dump.$$
grep -q '^abc' /tmp/dump.$$
rm -f /tmp/dump.$$ /tmp/dump-said.$$
echo "memcached-tool: passed"
