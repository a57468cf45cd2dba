/* SPDX-License-Identifier: GPL-2.0 */
/* What is sent for a request or without a socket: an RST, the ACK of a request or of TIME-WAIT. */
#ifndef TAO_REPLY_H
#define TAO_REPLY_H

#include <linux/ftrace.h>
#include <net/tcp.h>
#include "tao.h"

bool tao_ours_prepare_reset(struct ftrace_regs *fregs);
int tao_prepare_reset(const struct sock *sk, struct sk_buff *skb, const struct tcp_ao_hdr *aoh,
		      int l3index, u32 seq, struct tcp_ao_key **key, char **traffic_key,
		      bool *allocated_traffic_key, u8 *keyid, u32 *sne);
bool tao_ours_calc_key_rsk(struct ftrace_regs *fregs);
void tao_calc_key_rsk(struct tcp_ao_key *key, u8 *buf, struct request_sock *req);
bool tao_ours_established_key(struct ftrace_regs *fregs);
struct tcp_ao_key *tao_established_key(const struct sock *sk, struct tcp_ao_info *ao, int sndid,
				       int rcvid);
bool tao_ours_hash_hdr(struct ftrace_regs *fregs);
int tao_hash_hdr(unsigned short family, char *hash, struct tcp_ao_key *key, const u8 *tkey,
		 const union tcp_ao_addr *daddr, const union tcp_ao_addr *saddr,
		 const struct tcphdr *th, u32 sne);

#endif /* TAO_REPLY_H */
