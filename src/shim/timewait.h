/* SPDX-License-Identifier: GPL-2.0 */
/* How a connection ends: TIME-WAIT, and the end of a socket. */
#ifndef TAO_TIMEWAIT_H
#define TAO_TIMEWAIT_H

#include <linux/ftrace.h>
#include <net/tcp.h>
#include "tao.h"

bool tao_ours_time_wait(struct ftrace_regs *fregs);
void tao_time_wait(struct tcp_timewait_sock *tcptw, struct tcp_sock *tp);
bool tao_before_timewait(struct ftrace_regs *fregs);
enum tcp_tw_status tao_timewait_drop(struct inet_timewait_sock *tw, struct sk_buff *skb,
				     const struct tcphdr *th, u32 *tw_isn,
				     enum skb_drop_reason *drop_reason);
bool tao_before_destroy(struct ftrace_regs *fregs);
void tao_destroy_sock(struct sock *sk, bool twsk);

#endif /* TAO_TIMEWAIT_H */
