/* SPDX-License-Identifier: GPL-2.0 */
/* Which connection it is, as keys see it. */
#ifndef TAO_ENDS_H
#define TAO_ENDS_H

#include "tao.h"

struct tao_side tao_side_at(const struct sock *sk, int l3index);
struct tao_side tao_side_of_sock(const struct sock *sk);
void tao_ends_of_sock(const struct sock *sk, struct tao_ends *ends);
void tao_ends_of_addr(const void *addr, __u16 family, const struct sock *sk, int l3index,
		      struct tao_ends *ends);
__u16 tao_family_of_skb(const struct sk_buff *skb);
void tao_ends_of_skb(const struct sk_buff *skb, __u16 family, struct tao_side side,
		     struct tao_ends *ends);

#endif /* TAO_ENDS_H */
