# SPDX-License-Identifier: GPL-2.0-only
# The module by the kernel's own make, for whoever builds without `cargo xtask`.
#
#   KDIR  a kernel tree with Rust metadata (`make modules_prepare` in its sources)
#   MO    where the objects go; never the work tree itself, whose cargo objects
#         the kernel's `clean` would take for its own

KDIR ?= /lib/modules/$(shell uname -r)/build
MO ?= $(CURDIR)/target/kmod

kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(MO)

.PHONY: modules modules_install clean
modules: target/vendor/Cargo.lock
	@mkdir -p $(MO)
	+$(kbuild) modules

modules_install:
	+$(kbuild) modules_install

clean:
	+$(kbuild) clean

# The sources of the crates that come from outside, at the versions of Cargo.lock.
target/vendor/Cargo.lock: Cargo.lock
	cargo xtask vendor
