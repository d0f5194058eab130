// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet mirror as an XDP program, the limit for the XDP receive path: sends UDP
 * datagrams for memcached's port back with their addresses swapped, and looks
 * nothing up. IPv4 alone, as the benchmarks send. Checksums stay right, since a
 * sum does not depend on the order.
 */
#define SEC(name) __attribute__((section(name), used))

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

/* The verdicts and the argument of XDP programs (linux/bpf.h). */
enum { PASS = 2, TX = 3 };

struct xdp_md {
	u32 data;
	u32 data_end;
};

struct headers {
	u8 to[6], from[6];
	u16 protocol;
	u8 version, tos;
	u16 len, id, fragment;
	u8 ttl, next;
	u16 check;
	u16 source[2], destination[2];
	u16 source_port, destination_port;
	u16 udp_len, udp_check;
} __attribute__((packed));

#define PORT 11211

SEC("xdp")
int mirror(struct xdp_md *frame)
{
	struct headers *h = (void *)(long)frame->data;
	u16 port, half;
	u8 byte;
	int i;

	if ((void *)(h + 1) > (void *)(long)frame->data_end)
		return PASS;
	if (h->protocol != __builtin_bswap16(0x0800) || h->version != 0x45 || h->next != 17 ||
	    h->destination_port != __builtin_bswap16(PORT))
		return PASS;
	for (i = 0; i < 6; i++) {
		byte = h->to[i];
		h->to[i] = h->from[i];
		h->from[i] = byte;
	}
	for (i = 0; i < 2; i++) {
		half = h->source[i];
		h->source[i] = h->destination[i];
		h->destination[i] = half;
	}
	port = h->source_port;
	h->source_port = h->destination_port;
	h->destination_port = port;
	return TX;
}

char _license[] SEC("license") = "GPL";
