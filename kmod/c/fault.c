// SPDX-License-Identifier: GPL-2.0-only
/* Faults on purpose (linux/bug.h), to see that they are noticed. */
#include <linux/bug.h>

#include "hippos.h"

/* Kills the calling task with an oops. */
void hippos_oops(void)
{
	BUG();
}
