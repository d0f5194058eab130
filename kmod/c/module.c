// SPDX-License-Identifier: GPL-2.0-only
/* Module metadata that Rust's module! cannot give. */
#include <linux/module.h>
