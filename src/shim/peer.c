// SPDX-License-Identifier: GPL-2.0
/*
 * Peers: who is at the other end, as keys see it. This is the one place where a struct tao_peer is
 * filled in.
 */
#include <linux/ip.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/sock.h>
#include "net.h"
#include "peer.h"

static __always_inline void tao_fill_peer(const void *addr, __u16 addr_family,
					  const struct sock *sk, int l3index,
					  struct tao_peer *peer)
{
	*peer = (struct tao_peer) {
		.family = sk->sk_family,
		.l3index = l3index,
		.vrf = tao_vrf_at(sock_net(sk), l3index),
	};
	if (addr_family == AF_INET6)
		memcpy(peer->addr, addr, sizeof(struct in6_addr));
	else if (peer->family == AF_INET6)
		ipv6_addr_set_v4mapped(*(const __be32 *)addr, (struct in6_addr *)peer->addr);
	else
		memcpy(peer->addr, addr, sizeof(struct in_addr));
}

/* Whoever has the address @addr, as @sk sees it. */
void tao_peer_of_addr(const void *addr, __u16 addr_family, const struct sock *sk, int l3index,
		      struct tao_peer *peer)
{
	tao_fill_peer(addr, addr_family, sk, l3index, peer);
}

/* The sender of @skb, as @sk sees it. */
void tao_peer_of_skb(const struct sk_buff *skb, __u16 packet_family, const struct sock *sk,
		     int l3index, struct tao_peer *peer)
{
	if (packet_family == AF_INET6)
		tao_fill_peer(&ipv6_hdr(skb)->saddr, AF_INET6, sk, l3index, peer);
	else
		tao_fill_peer(&ip_hdr(skb)->saddr, AF_INET, sk, l3index, peer);
}

/* The other end of @sk, which may be a request socket. */
void tao_peer_of_sock(const struct sock *sk, struct tao_peer *peer)
{
	int l3index = l3mdev_master_ifindex_by_index(sock_net(sk), sk->sk_bound_dev_if);

	if (sk->sk_family == AF_INET6)
		tao_fill_peer(&sk->sk_v6_daddr, AF_INET6, sk, l3index, peer);
	else
		tao_fill_peer(&sk->sk_daddr, AF_INET, sk, l3index, peer);
}
