// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of the direct map, big tables, and how much memory there is (linux/gfp.h,
 * linux/mm.h, linux/shrinker.h).
 */
#include <linux/gfp.h>
#include <linux/kasan.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/slab.h>

#include "hippos.h"

/*
 * A block of bytes (a power of two, at least a page), aligned to its size.
 * Fails early: the caller then evicts.
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

/* Bytes that can be allocated without swapping: free memory and caches that can be dropped. */
u64 hippos_memory_available(void)
{
	long pages = si_mem_available();

	return pages > 0 ? (u64)pages << PAGE_SHIFT : 0;
}

static u64 short_of;

/*
 * Called when the kernel reclaims memory. A shrinker may not wait for grace periods:
 * it wakes hippos/store, which frees blocks.
 */
static unsigned long count_objects(struct shrinker *shrinker, struct shrink_control *control)
{
	if (hippos_memory_available() < READ_ONCE(short_of))
		hippos_waker_wake(shrinker->private_data);
	return 0;
}

static unsigned long scan_objects(struct shrinker *shrinker, struct shrink_control *control)
{
	return SHRINK_STOP;
}

/*
 * Wakes the waker when the kernel reclaims memory and less than this many bytes are
 * available. One is registered at a time. NULL without memory for it.
 */
struct shrinker *hippos_shrinker_register(struct hippos_waker *waker, u64 bytes)
{
	struct shrinker *shrinker = shrinker_alloc(0, "hippos");

	if (!shrinker)
		return NULL;
	WRITE_ONCE(short_of, bytes);
	shrinker->count_objects = count_objects;
	shrinker->scan_objects = scan_objects;
	shrinker->private_data = waker;
	shrinker_register(shrinker);
	return shrinker;
}

/* The waker is not woken afterwards. May sleep. */
void hippos_shrinker_unregister(struct shrinker *shrinker)
{
	shrinker_free(shrinker);
}

/*
 * The address one page below that of physical address 0 in the direct map: a
 * block's distance from it is its physical address plus a page. PAGE_OFFSET is not
 * that address: on arm64 a kernel for 52-bit addresses has its direct map
 * 0xf000000000000 bytes above it when the CPU has 48. The zero page has an address
 * in the direct map on every machine.
 */
unsigned long hippos_direct_map(void)
{
	struct page *page = ZERO_PAGE(0);

	return (unsigned long)kasan_reset_tag(page_address(page)) - page_to_phys(page) - PAGE_SIZE;
}
