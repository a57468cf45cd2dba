/* SPDX-License-Identifier: GPL-2.0 */
/* How a connection begins at a listener: SYN, SYN-ACK, and the socket that is made of them. */
#ifndef TAO_ACCEPT_H
#define TAO_ACCEPT_H

#include <linux/ftrace.h>
#include <net/tcp.h>
#include "tao.h"

bool tao_before_conn_request(struct ftrace_regs *fregs);
int tao_drop_syn(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops,
		 struct sock *sk, struct sk_buff *skb);
bool tao_before_make_synack(struct ftrace_regs *fregs);
struct sk_buff *tao_make_no_synack(const struct sock *sk, struct dst_entry *dst,
				   struct request_sock *req, struct tcp_fastopen_cookie *foc,
				   enum tcp_synack_type synack_type, struct sk_buff *syn_skb);
bool tao_ours_synack_hash(struct ftrace_regs *fregs);
int tao_synack_hash(char *hash, struct tcp_ao_key *key, struct request_sock *req,
		    const struct sk_buff *skb, int hash_offset, u32 sne);
bool tao_ours_lookup_rsk(struct ftrace_regs *fregs);
struct tcp_ao_key *tao_lookup_rsk(const struct sock *sk, struct request_sock *req, int sndid,
				  int rcvid);
bool tao_ours_copy_all(struct ftrace_regs *fregs);
int tao_copy_all_matching(const struct sock *sk, struct sock *newsk, struct request_sock *req,
			  struct sk_buff *skb, int family);

#endif /* TAO_ACCEPT_H */
