#!/bin/sh
# Runs stock clients against a server, each with every operation that it has.
# usage: run.sh ROOT HOST:PORT [NAME…]
# ROOT is made by setup.sh if it is not there. They flush the server.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$1
server=$2
shift 2
"$here/setup.sh" "$root" > "$root.log" 2>&1 || { tail -20 "$root.log"; exit 1; }

all='libmemcached memcached_tool pymemcache_ops pylibmc_ops bmemcached_ops python_memcached_ops
    aiomcache_ops memcached_ops memcache_ops gomemcache_ops dalli_ops perl_ops nutcracker'
passed=0
failed=0
for name in ${*:-$all}; do
    # The suites take longer than a client.
    if [ "$name" = suites ]; then limit=1500; else limit=300; fi
    file=$(cd "$here" && ls "$name".*)
    case $file in
    *.py) command="python3 $file $server" ;;
    *.php) command="php $file $server" ;;
    *.rb) command="ruby $file $server" ;;
    *.pl) command="perl $file $server" ;;
    *.go) command="go run $file $server" ;;
    *.sh) command="sh $file $server" ;;
    esac
    # In a mount namespace of its own, so that nothing stays mounted whatever happens.
    if unshare --mount sh -c "
        mkdir -p '$root/clients' && mount --bind '$here' '$root/clients' &&
        mount -t proc proc '$root/proc' &&
        GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=/var/cache/go PYTHONDONTWRITEBYTECODE=1 \
        exec chroot '$root' sh -c 'cd /clients && exec timeout $limit $command'
    " > "$root.out" 2>&1; then
        passed=$((passed + 1))
        tail -1 "$root.out"
    else
        failed=$((failed + 1))
        echo "$name FAILED"
        tail -25 "$root.out" | sed 's/^/    /'
    fi
done
echo "clients: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
