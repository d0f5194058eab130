// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XDP program that `hippos-ctl xdp attach` puts on an interface: it asks
 * the module about each frame. Built by build.rs with clang.
 */
#define SEC(name) __attribute__((section(name), used))

/* linux/bpf.h; a declaration alone would not be found the same as the kernel's. */
struct xdp_md {
	unsigned int data;
};

/* In kmod/c/xdp.c. Says what to do with the frame, or makes the reply of it. */
extern int hippos_xdp(struct xdp_md *frame) SEC(".ksyms");

SEC("xdp")
int hippos(struct xdp_md *frame)
{
	return hippos_xdp(frame);
}

char _license[] SEC("license") = "GPL";
