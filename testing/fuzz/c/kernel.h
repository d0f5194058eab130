/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the kernel that kmod/c/frame.h and its headers use, for the host:
 * definitions without checks or locks, of the same meaning. Structures of
 * headers on the wire are the host's own (linux-libc-dev).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <linux/udp.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "htons() would be wrong");

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;
typedef u64 netdev_features_t;
typedef struct spinlock spinlock_t;

/* linux/compiler.h, linux/build_bug.h, linux/minmax.h, linux/rcupdate.h, linux/percpu.h */
#undef __always_inline
#define __always_inline inline __attribute__((__always_inline__))
#define __aligned(n) __attribute__((__aligned__(n)))
#define __cold
#define __force
#define __rcu
#define likely(condition) (condition)
#define unlikely(condition) (condition)
#define static_assert(condition) _Static_assert(condition, #condition)
#define IS_ENABLED(option) 1
#define READ_ONCE(value) (value)
#define rcu_access_pointer(pointer) (pointer)
#define swap(a, b) do { __typeof__(a) kept = (a); (a) = (b); (b) = kept; } while (0)
#define DECLARE_PER_CPU(type, name) extern type name
#define this_cpu_inc_return(variable) (++(variable))

#define htons(n) ((__be16)__builtin_bswap16((u16)(n)))
#define ntohs(n) __builtin_bswap16((u16)(n))
#define htonl(n) ((__be32)__builtin_bswap32((u32)(n)))

/* Parts of structures that hippos.h asserts the sizes of. */
struct llist_node { struct llist_node *next; };
struct llist_head { struct llist_node *first; };
struct page_frag { void *page; u32 offset, size; };

/* linux/netdevice.h, linux/if_vlan.h, net/net_namespace.h, net/xdp.h */
#define CONFIG_XFRM
enum { XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_USERPOLICY_ACCEPT };
#define NETIF_F_HW_VLAN_CTAG_RX 1
#define NETIF_F_HW_VLAN_STAG_RX 2
#define NETIF_F_HW_VLAN_CTAG_FILTER 4
#define NETIF_F_HW_VLAN_STAG_FILTER 8
#define IFF_L3MDEV_MASTER 1
#define IFF_L3MDEV_SLAVE 2
#define IFF_802_1Q_VLAN 4
#define VLAN_VID_MASK 0x0fff

struct list_head { struct list_head *next, *prev; };
#define list_empty(head) ((head)->next == (head))
#define is_vlan_dev(dev) (!!((dev)->priv_flags & IFF_802_1Q_VLAN))

struct net {
	struct {
		u32 policy_count[2];
		u8 policy_default[2];
	} xfrm;
};

struct in_ifaddr {
	struct in_ifaddr *ifa_next;
	__be32 ifa_local, ifa_address, ifa_mask;
	u8 ifa_prefixlen;
};

struct in_device { struct in_ifaddr *ifa_list; };
struct inet6_dev { struct { s32 disable_ipv6; } cnf; };

struct net_device {
	netdev_features_t features;
	u32 flags, priv_flags;
	u16 type;
	u8 dev_addr[ETH_ALEN];
	const void *rx_handler, *vlan_info;
	struct in_device *ip_ptr;
	struct inet6_dev *ip6_ptr;
	struct { struct list_head lower; } adj_list;
};

struct vlan_hdr { __be16 h_vlan_TCI, h_vlan_encapsulated_proto; };
struct xdp_rxq_info { struct net_device *dev; };
struct xdp_buff { void *data, *data_end; struct xdp_rxq_info *rxq; };

/* The test defines the machine by these. */
struct net_device *__vlan_find_dev_deep_rcu(struct net_device *dev, __be16 proto, u16 vid);
u16 vlan_dev_get_egress_qos_mask(struct net_device *dev, u32 priority);
bool __ip_dev_find(struct net *net, __be32 address, bool reference);
bool ipv6_chk_addr(struct net *net, const struct in6_addr *address,
		   const struct net_device *dev, int strict);

static inline bool ether_addr_equal(const u8 *a, const u8 *b)
{
	return !memcmp(a, b, ETH_ALEN);
}

static inline bool is_multicast_ether_addr(const u8 *address)
{
	return address[0] & 1;
}

/* linux/inetdevice.h, net/ip.h, net/ipv6.h */
#define __in_dev_get_rcu(dev) ((dev)->ip_ptr)
#define __in6_dev_get(dev) ((dev)->ip6_ptr)
#define in_dev_for_each_ifa_rcu(ifa, in_dev) \
	for (ifa = (in_dev)->ifa_list; ifa; ifa = ifa->ifa_next)
#define inet_ifa_match(address, ifa) (!(((address) ^ (ifa)->ifa_address) & (ifa)->ifa_mask))
#define ip_is_fragment(iph) (((iph)->frag_off & htons(0x3fff)) != 0)
#define ipv4_is_zeronet(address) (((address) & htonl(0xff000000)) == 0)
#define ipv4_is_loopback(address) (((address) & htonl(0xff000000)) == htonl(0x7f000000))
#define ipv4_is_multicast(address) (((address) & htonl(0xf0000000)) == htonl(0xe0000000))
#define ipv4_is_lbcast(address) ((address) == htonl(0xffffffff))
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_DEST 60

static inline bool ipv6_begins(const struct in6_addr *address, const void *bytes, size_t len)
{
	return !memcmp(address, bytes, len);
}

#define ipv6_addr_any(address) ipv6_begins(address, (u8 [16]){}, 16)
#define ipv6_addr_loopback(address) ipv6_begins(address, (u8 [16]){ [15] = 1 }, 16)
#define ipv6_addr_v4mapped(address) ipv6_begins(address, (u8 [12]){ [10] = 0xff, [11] = 0xff }, 12)
#define ipv6_addr_is_multicast(address) ipv6_begins(address, (u8 [1]){ 0xff }, 1)

static inline void ip6_flow_hdr(struct ipv6hdr *iph, u32 class, __be32 label)
{
	__be32 first = htonl(0x60000000 | class << 20) | label;

	memcpy(iph, &first, sizeof(first));
}

/* net/checksum.h, net/ip6_checksum.h, net/udp.h */
#define CSUM_MANGLED_0 ((__sum16)0xffff)

static inline __wsum csum_add(__wsum a, __wsum b)
{
	u64 sum = (u64)a + b;

	return (u32)sum + (u32)(sum >> 32);
}

static inline __wsum csum_partial(const void *bytes, int len, __wsum sum)
{
	const u8 *byte = bytes;

	for (; len > 1; len -= 2, byte += 2)
		sum = csum_add(sum, byte[0] | byte[1] << 8);
	return len ? csum_add(sum, *byte) : sum;
}

static inline __sum16 csum_fold(__wsum sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static inline __wsum csum_tcpudp_nofold(__be32 from, __be32 to, u32 len, u8 protocol, __wsum sum)
{
	sum = csum_add(csum_add(sum, from), to);
	return csum_add(csum_add(sum, htons(len)), htons(protocol));
}

static inline __sum16 csum_tcpudp_magic(__be32 from, __be32 to, u32 len, u8 protocol, __wsum sum)
{
	return csum_fold(csum_tcpudp_nofold(from, to, len, protocol, sum));
}

static inline __sum16 csum_ipv6_magic(const struct in6_addr *from, const struct in6_addr *to,
				      u32 len, u8 protocol, __wsum sum)
{
	sum = csum_partial(from, sizeof(*from), csum_partial(to, sizeof(*to), sum));
	return csum_fold(csum_add(csum_add(sum, htonl(len)), htonl(protocol)));
}

static inline __sum16 udp_v6_check(int len, const struct in6_addr *from, const struct in6_addr *to,
				   __wsum sum)
{
	return csum_ipv6_magic(from, to, len, IPPROTO_UDP, sum);
}

static inline __sum16 ip_fast_csum(const void *iph, unsigned int words)
{
	return csum_fold(csum_partial(iph, words * 4, 0));
}
