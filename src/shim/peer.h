/* SPDX-License-Identifier: GPL-2.0 */
/* Peers: who is at the other end, as keys see it. */
#ifndef TAO_PEER_H
#define TAO_PEER_H

#include "tao.h"

void tao_peer_of_addr(const void *addr, __u16 addr_family, const struct sock *sk, int l3index,
		      struct tao_peer *peer);
void tao_peer_of_skb(const struct sk_buff *skb, __u16 packet_family, const struct sock *sk,
		     int l3index, struct tao_peer *peer);
void tao_peer_of_sock(const struct sock *sk, struct tao_peer *peer);

#endif /* TAO_PEER_H */
