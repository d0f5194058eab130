#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Makes a Debian 13 root with the stock clients, their own test suites and memcached in it.
# usage: setup.sh ROOT
# Needs root rights, or those of a user namespace with a range of ids; about 1 GB and two minutes.
# HIPPOS_MIRROR names a mirror other than mmdebstrap's own.
set -eu
root=$1
packages='
    memcached libmemcached-tools nutcracker perl liburi-perl netcat-openbsd procps
    php-cli php-memcached php-memcache
    python3 python3-pytest python3-pylibmc python3-pymemcache python3-memcache
    python3-binary-memcached python3-aiomcache
    golang-go golang-github-bradfitz-gomemcache-dev
    libcache-memcached-perl libcache-memcached-fast-perl libmemcached-libmemcached-perl
    ruby ruby-dalli
    dpkg-dev
'
# Their sources hold the test suites.
sources='memcached libmemcached python-pymemcache pylibmc libcache-memcached-perl
    libcache-memcached-fast-perl libmemcached-libmemcached-perl php-memcached'

here=$(cd "$(dirname "$0")" && pwd)
stamp="$(cat "$here/setup.sh" | sha256sum)"
if [ "$(cat "$root/.made-from" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
rm -rf "$root" "$root.new"
mkdir -p "$(dirname "$root")"
# shellcheck disable=SC2086
mmdebstrap --mode=root --variant=apt --quiet trixie "$root.new" ${HIPPOS_MIRROR:-}
cat > "$root.new/etc/dpkg/dpkg.cfg.d/hippos" <<END
force-unsafe-io
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
END
echo 'APT::Sandbox::User "root"; Acquire::Retries "3";' > "$root.new/etc/apt/apt.conf.d/hippos"
sed 's/^deb /deb-src /' "$root.new/etc/apt/sources.list" > "$root.new/etc/apt/sources.list.d/src.list"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$root.new" apt-get -q update
# shellcheck disable=SC2086
chroot "$root.new" apt-get -q install -y --no-install-recommends $packages
mkdir -p "$root.new/src"
for package in $sources; do
    # Not every mirror keeps all the files of a source package; the archive is enough.
    chroot "$root.new" sh -c "cd /src && apt-get -q source --download-only $package" || true
done
chroot "$root.new" sh -c 'cd /src && for f in *.orig.tar.*; do tar xf "$f"; done'
# memcached's tests ask the program next to them what it can do.
for tests in "$root.new"/src/memcached-*; do
    ln -sf /usr/bin/memcached "$tests/memcached-debug"
done
echo "$stamp" > "$root.new/.made-from"
sync -f "$root.new"
mv "$root.new" "$root"
