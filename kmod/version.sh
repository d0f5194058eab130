#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Prints the version of the module that these sources are for: the package's, and a digest of what the module is
# compiled from. Kbuild puts it into the module, and userspace-ctl/build.rs into hippos-ctl, so that hippos-ctl can
# tell whether the loaded module is the one that it was released with.
#
# A digest, because it needs no git (DKMS and `cargo xtask dist` have none), because the same sources give the same
# bytes, and because a commit that does not change the module does not change it. The registry's crates, whose
# versions are in Cargo.lock, are not part of it.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Tests are not compiled, and are not in DKMS's tree.
digest=$(find Kbuild kmod \( -name tests -o -name benches -o -name examples \) -prune -o \
    -type f \( -name Kbuild -o -name '*.rs' -o -name '*.[ch]' \) ! -name tests.rs -print |
    sort | xargs sha256sum | sha256sum)
echo "$version+$(echo "$digest" | cut -c 1-12)"
