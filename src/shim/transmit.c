// SPDX-License-Identifier: GPL-2.0
/* What a socket sends. */
#include <net/ipv6.h>
#include <net/tcp.h>
#include "conn.h"
#include "rust.h"
#include "segment.h"
#include "tables.h"
#include "transmit.h"

void tao_calc_key_sk(struct tcp_ao_key *key, u8 *tkey, const struct sock *sk, __be32 sisn,
		     __be32 disn, bool send)
{
}

/* Every segment that an attached socket sends: socket locked. */
int tao_calc_ao_hash(char *location, struct tcp_ao_key *key, const struct sock *sk,
		     const struct sk_buff *skb, const u8 *tkey, int hash_offset, u32 sne)
{
	struct tao_conn *conn = tao_conn_of_key(key);
	struct tao_segment seg = tao_segment_to_sign(location, hash_offset, skb, skb->len);
	struct tao_numbers numbers = {
		.lisn = ntohl(conn->info.lisn),
		.risn = ntohl(conn->info.risn),
		.sne = sne,
		.seq = ntohl(((const struct tcphdr *)seg.th)->seq),
	};
	int err;

	sock_owned_by_me(sk);
	seg.side = tao_side_of_conn(conn);
	if (sk->sk_family == AF_INET6 && !ipv6_addr_v4mapped(&sk->sk_v6_daddr)) {
		seg.family = AF_INET6;
		seg.saddr = (const u8 *)&sk->sk_v6_rcv_saddr;
		seg.daddr = (const u8 *)&sk->sk_v6_daddr;
	} else {
		seg.family = AF_INET;
		seg.saddr = (const u8 *)&sk->sk_rcv_saddr;
		seg.daddr = (const u8 *)&sk->sk_daddr;
	}
	err = tao_rust_transmit(conn, &seg, &numbers);
	if (unlikely(err)) {
		memset(location, 0, TAO_MAC_LEN);
		tao_drop_segment((struct sock *)sk, min(err, 0));
	}
	return err;
}
