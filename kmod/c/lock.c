// SPDX-License-Identifier: GPL-2.0-only
/* Spin locks (linux/spinlock.h) for process context, and a mutex. */
#include <linux/mutex.h>
#include <linux/spinlock.h>

#include "hippos.h"

/* lockdep checks the order in which locks of different classes are taken. */
#define CLASSES 8
static struct lock_class_key classes[CLASSES];

void hippos_lock_init(spinlock_t *lock, unsigned int class)
{
	spin_lock_init(lock);
	lockdep_set_class(lock, &classes[class % CLASSES]);
}

void hippos_lock(spinlock_t *lock)
{
	spin_lock(lock);
}

bool hippos_trylock(spinlock_t *lock)
{
	return spin_trylock(lock);
}

void hippos_unlock(spinlock_t *lock)
{
	spin_unlock(lock);
}

static DEFINE_MUTEX(registry_mutex);

void hippos_registry_lock(void)
{
	mutex_lock(&registry_mutex);
}

void hippos_registry_unlock(void)
{
	mutex_unlock(&registry_mutex);
}
