#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The proxy nutcracker (twemproxy) in front of two servers.
# usage: nutcracker.sh HOST:PORT [HOST:PORT]: with one address it is both servers.
set -eu
first=$1
second=${2:-$1}
port=$((20000 + $$ % 10000))
dir=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$dir"' EXIT
cat > "$dir/conf.yml" <<END
pool:
  listen: 127.0.0.1:$port
  hash: fnv1a_64
  distribution: ketama
  timeout: 20000
  servers:
   - $first:1 one
   - $second:1 two
END
nutcracker -c "$dir/conf.yml" -s $((port + 10000)) -o "$dir/log" &
pid=$!
sleep 1
python3 "$(dirname "$0")/nutcracker_ops.py" 127.0.0.1:$port
