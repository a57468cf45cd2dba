/* SPDX-License-Identifier: GPL-2.0 */
/* What a socket sends. */
#ifndef TAO_TRANSMIT_H
#define TAO_TRANSMIT_H

#include <net/tcp.h>
#include "tao.h"

void tao_calc_key_sk(struct tcp_ao_key *key, u8 *tkey, const struct sock *sk, __be32 sisn,
		     __be32 disn, bool send);
int tao_calc_ao_hash(char *location, struct tcp_ao_key *key, const struct sock *sk,
		     const struct sk_buff *skb, const u8 *tkey, int hash_offset, u32 sne);

#endif /* TAO_TRANSMIT_H */
