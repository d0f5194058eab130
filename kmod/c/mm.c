// SPDX-License-Identifier: GPL-2.0-only
/* Pages of the direct map and big tables (linux/gfp.h, linux/mm.h). */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "hippos.h"

/*
 * A block of bytes (a power of two, at least a page), aligned to its size.
 * Not worth reclaiming hard for: the caller has a use for the answer no.
 */
void *hippos_pages_alloc(size_t bytes)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY,
					get_order(bytes));

	return page ? page_address(page) : NULL;
}

void hippos_pages_free(void *address, size_t bytes)
{
	__free_pages(virt_to_page(address), get_order(bytes));
}

/* Zeroed. */
void *hippos_table_alloc(size_t bytes)
{
	return kvzalloc(bytes, GFP_KERNEL | __GFP_NOWARN);
}

void hippos_table_free(void *address)
{
	kvfree(address);
}

/* Bytes of memory that the machine has. */
u64 hippos_memory(void)
{
	return (u64)totalram_pages() << PAGE_SHIFT;
}

/* Where the direct map starts. */
unsigned long hippos_direct_map(void)
{
	return PAGE_OFFSET;
}
