// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's version (linux/module.h), as kmod/version.sh has it. In a file of its
 * own: it is all that is compiled anew when only the version changes.
 */
#include <linux/module.h>

#include "hippos.h"

MODULE_VERSION(HIPPOS_VERSION);

const char *hippos_version(void)
{
	return HIPPOS_VERSION;
}
