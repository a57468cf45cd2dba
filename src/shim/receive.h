/* SPDX-License-Identifier: GPL-2.0 */
/* What comes for a socket or a request: signed segments, and those that are not. */
#ifndef TAO_RECEIVE_H
#define TAO_RECEIVE_H

#include <linux/ftrace.h>
#include <net/tcp.h>
#include "tao.h"

bool tao_ours_inbound(struct ftrace_regs *fregs);
void tao_call_inbound(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
		      struct ftrace_regs *fregs);
enum skb_drop_reason tao_inbound_ao_hash(struct sock *sk, const struct sk_buff *skb,
					 unsigned short family, const struct request_sock *req,
					 int l3index, const struct tcp_ao_hdr *aoh);
bool tao_ours_do_lookup(struct ftrace_regs *fregs);
struct tcp_ao_key *tao_do_lookup(const struct sock *sk, int l3index, const union tcp_ao_addr *addr,
				 int family, int sndid, int rcvid);
bool tao_ours_md5_do_lookup(struct ftrace_regs *fregs);
struct tcp_md5sig_key *tao_md5_do_lookup(const struct sock *sk, int l3index,
					 const union tcp_md5_addr *addr, int family,
					 bool any_l3index);

#endif /* TAO_RECEIVE_H */
