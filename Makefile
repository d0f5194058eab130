# SPDX-License-Identifier: GPL-2.0-only
# Builds the module by the kernel's own make, without `cargo xtask`.
#
#   KDIR  a kernel tree with Rust metadata (`make modules_prepare` in its sources)
#   KREL  the release of the kernel that is to load the module; the running one's by default
#   MO    where the objects go; never the work tree itself, whose cargo objects
#         the kernel's `clean` would take for its own

KREL ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KREL)/build
MO ?= $(CURDIR)/target/kmod

kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(MO)
# The release of the tree's kernel; empty for a tree that is not prepared.
made = $(shell cat $(KDIR)/include/config/kernel.release 2>/dev/null)

.PHONY: modules modules_install clean release
modules: release target/vendor/Cargo.lock
	@mkdir -p $(MO)
	+$(kbuild) modules

modules_install:
	+$(kbuild) modules_install

clean:
	+$(kbuild) clean

# A module loads in one kernel only: better to stop now than after the build.
release:
	$(if $(made),,$(error $(KDIR) is no prepared kernel tree: run `make modules_prepare` in it, \
		or name another one by KDIR))
	$(if $(filter-out $(KREL),$(made)),$(error the tree in $(KDIR) is of kernel $(made), but the module \
		is for $(KREL): take that kernel's source, or name the kernel by KREL))

# The sources of the crates that come from outside, at the versions of Cargo.lock.
target/vendor/Cargo.lock: Cargo.lock
	cargo xtask vendor
