#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the golden vectors beside it with libmemcached (libmemcached-dev) and
# twemproxy (nutcracker) of Debian. Each file's first line is its arguments.
set -e
cd "$(dirname "$0")"
build=$(mktemp -d)
cc -o "$build/vectors" libmemcached.c -lmemcached
libmemcached() { name=$1; shift; { echo "# $*"; "$build/vectors" "$@" < keys; } > "libmemcached-$name.txt"; }
twemproxy() { name=$1; shift; { echo "# $*"; ./twemproxy.py "$@" < keys; } > "twemproxy-$name.txt"; }
A=10.0.0.1:11211 B=10.0.0.2:11211 C=cache.example:11212
libmemcached modula modula 0 $A $B $C
libmemcached modula-md5 modula 1 $A $B $C
libmemcached modula-crc modula 2 $A $B $C
libmemcached modula-fnv1-64 modula 3 $A $B $C
libmemcached modula-fnv1a-64 modula 4 $A $B $C
libmemcached modula-fnv1-32 modula 5 $A $B $C
libmemcached modula-fnv1a-32 modula 6 $A $B $C
libmemcached ketama ketama -1 $A $B $C
libmemcached weighted weighted -1 $A:1 $B:3 $C:7
libmemcached weighted-even weighted -1 $A:5 $B:5 $C:5
twemproxy ketama ketama fnv1a_64 - 31101:1:alpha 31102:1:beta 31103:1:gamma
twemproxy weighted ketama md5 - 31101:1:alpha 31102:3:beta 31103:7:gamma
twemproxy unnamed ketama fnv1a_64 - 31101 31102 31103
twemproxy default-port ketama fnv1a_64 - 11211 31102 31103
twemproxy tag ketama fnv1a_64 '{}' 31101:1:alpha 31102:1:beta 31103:1:gamma
twemproxy tag-bar ketama fnv1a_64 '##' 31101:1:alpha 31102:1:beta 31103:1:gamma
twemproxy modula modula fnv1a_64 - 31101:1:alpha 31102:2:beta 31103:1:gamma
for hash in one_at_a_time crc16 crc32 crc32a fnv1_64 fnv1_32 fnv1a_32; do
  twemproxy "modula-$hash" modula $hash - 31101 31102 31103
done
rm -r "$build"
