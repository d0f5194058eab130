// SPDX-License-Identifier: GPL-2.0-only
/* Pages of the direct map and big tables (linux/gfp.h, linux/mm.h). */
#include <linux/gfp.h>
#include <linux/kasan.h>
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

	/* Without a tag of hardware KASAN's: references are distances between addresses. */
	return page ? kasan_reset_tag(page_address(page)) : NULL;
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

/*
 * A page below where the direct map has, or would have, physical address 0; a
 * block is so far above it as its physical address says. PAGE_OFFSET would not
 * do: on arm64 a kernel for 52-bit addresses has its direct map 0xf000000000000
 * bytes above it when the CPU has 48. The zero page has an address in the direct
 * map on every machine.
 */
unsigned long hippos_direct_map(void)
{
	struct page *page = ZERO_PAGE(0);

	return (unsigned long)kasan_reset_tag(page_address(page)) - page_to_phys(page) - PAGE_SIZE;
}
