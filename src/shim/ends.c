// SPDX-License-Identifier: GPL-2.0
/*
 * Which connection it is, as keys see it. This is the one place where a struct tao_side or a struct
 * tao_ends is filled in.
 */
#include <linux/ip.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/sock.h>
#include "ends.h"
#include "net.h"

/* What comes for @sk through this L3 master device, 0 for none. */
struct tao_side tao_side_at(const struct sock *sk, int l3index)
{
	return (struct tao_side) {
		.vrf = tao_vrf_at(sock_net(sk), l3index),
		.family = sk->sk_family,
	};
}

/* The connection of @sk, which may be a request socket, or the one that it is about to begin. */
struct tao_side tao_side_of_sock(const struct sock *sk)
{
	return tao_side_at(sk, l3mdev_master_ifindex_by_index(sock_net(sk), sk->sk_bound_dev_if));
}

/* An address, as a socket of the family @seen_by sees it. */
static __always_inline void tao_fill_addr(__u8 *to, __u16 seen_by, const void *addr,
					  __u16 family)
{
	if (family == AF_INET6)
		memcpy(to, addr, sizeof(struct in6_addr));
	else if (seen_by == AF_INET6)
		ipv6_addr_set_v4mapped(*(const __be32 *)addr, (struct in6_addr *)to);
	else
		memcpy(to, addr, sizeof(struct in_addr));
}

/* What @sk knows of its connection; a listener knows its port, and its address if it has one. */
static void tao_fill_ends(const struct sock *sk, struct tao_side side, struct tao_ends *ends)
{
	*ends = (struct tao_ends) {
		.side = side,
		.remote_port = ntohs(sk->sk_dport),
		.local_port = sk->sk_num,
	};
	if (sk->sk_family == AF_INET6)
		tao_fill_addr(ends->local, AF_INET6, &sk->sk_v6_rcv_saddr, AF_INET6);
	else
		tao_fill_addr(ends->local, AF_INET, &sk->sk_rcv_saddr, AF_INET);
}

/* The connection of @sk, which may be a request socket, or the one that it is about to begin. */
void tao_ends_of_sock(const struct sock *sk, struct tao_ends *ends)
{
	tao_fill_ends(sk, tao_side_of_sock(sk), ends);
	if (sk->sk_family == AF_INET6)
		tao_fill_addr(ends->remote, AF_INET6, &sk->sk_v6_daddr, AF_INET6);
	else
		tao_fill_addr(ends->remote, AF_INET, &sk->sk_daddr, AF_INET);
}

/* The connection of @sk, or one of a listener's, with whoever has the address @addr. */
void tao_ends_of_addr(const void *addr, __u16 family, const struct sock *sk, int l3index,
		      struct tao_ends *ends)
{
	tao_fill_ends(sk, tao_side_at(sk, l3index), ends);
	tao_fill_addr(ends->remote, sk->sk_family, addr, family);
}

/* AF_INET or AF_INET6: what @skb is. */
__u16 tao_family_of_skb(const struct sk_buff *skb)
{
	return skb->protocol == htons(ETH_P_IPV6) ? AF_INET6 : AF_INET;
}

/* The connection that @skb, which has come, belongs to. */
void tao_ends_of_skb(const struct sk_buff *skb, __u16 family, struct tao_side side,
		     struct tao_ends *ends)
{
	const struct tcphdr *th = tcp_hdr(skb);

	*ends = (struct tao_ends) {
		.side = side,
		.remote_port = ntohs(th->source),
		.local_port = ntohs(th->dest),
	};
	if (family == AF_INET6) {
		tao_fill_addr(ends->remote, AF_INET6, &ipv6_hdr(skb)->saddr, AF_INET6);
		tao_fill_addr(ends->local, AF_INET6, &ipv6_hdr(skb)->daddr, AF_INET6);
	} else {
		tao_fill_addr(ends->remote, side.family, &ip_hdr(skb)->saddr, AF_INET);
		tao_fill_addr(ends->local, side.family, &ip_hdr(skb)->daddr, AF_INET);
	}
}
