/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust is told of a segment, and of the request that it is for. Inline, since every segment
 * passes here.
 */
#ifndef TAO_SEGMENT_H
#define TAO_SEGMENT_H

#include <net/ipv6.h>
#include <net/tcp.h>
#include "tao.h"

static inline void tao_segment_of_skb(const struct sk_buff *skb, u16 family, struct tao_side side,
				      struct tao_segment *seg)
{
	const struct tcphdr *th = tcp_hdr(skb);

	*seg = (struct tao_segment) {
		.skb = skb,
		.th = (u8 *)th,
		.header_len = th->doff * 4,
		.len = skb->len,
		.family = family,
		.side = side,
	};
	if (family == AF_INET6) {
		seg->saddr = (const u8 *)&ipv6_hdr(skb)->saddr;
		seg->daddr = (const u8 *)&ipv6_hdr(skb)->daddr;
	} else {
		seg->saddr = (const u8 *)&ip_hdr(skb)->saddr;
		seg->daddr = (const u8 *)&ip_hdr(skb)->daddr;
	}
}

/*
 * A segment that is to be sent, without its addresses and the rest of its connection. The MAC goes to @hash, which is @hash_offset
 * bytes behind the beginning of the header: in the AO option, behind the ids. @skb is as in struct
 * tao_segment, and so is @len.
 */
static inline struct tao_segment tao_segment_to_sign(char *hash, long hash_offset,
						     const struct sk_buff *skb, u32 len)
{
	struct tcphdr *th = (struct tcphdr *)(hash - hash_offset);

	return (struct tao_segment) {
		.skb = skb,
		.th = (u8 *)th,
		.header_len = th->doff * 4,
		.len = len,
		.ao = hash_offset - sizeof(struct tcp_ao_hdr),
	};
}

static inline void tao_numbers_of_req(const struct request_sock *req,
				      struct tao_numbers *numbers)
{
	const struct tcp_request_sock *treq = tcp_rsk(req);

	*numbers = (struct tao_numbers) {
		.lisn = treq->snt_isn,
		.risn = treq->rcv_isn,
		.sne = 0,
	};
}

#endif /* TAO_SEGMENT_H */
