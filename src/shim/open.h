/* SPDX-License-Identifier: GPL-2.0 */
/* How a connection begins at this end: connect() and listen(). */
#ifndef TAO_OPEN_H
#define TAO_OPEN_H

#include <linux/ftrace.h>
#include <net/tcp.h>
#include "tao.h"

int tao_protect(struct sock *sk, struct tao_conn *conn);
void tao_not_connected(struct tao_conn *conn);
bool tao_ours_connect(struct ftrace_regs *fregs);
bool tao_ours_defer(struct ftrace_regs *fregs);
bool tao_do_not_defer(struct sock *sk, int *err);
int tao_connect(struct sock *sk);
bool tao_before_finish_connect(struct ftrace_regs *fregs);
bool tao_before_send_synack(struct ftrace_regs *fregs);
bool tao_before_listen(struct ftrace_regs *fregs);
int tao_refuse_listen(struct sock *sk);
struct tcp_md5sig_key *tao_md5_lookup(const struct sock *sk, const struct sock *addr_sk);
bool tao_ours_ao_lookup(struct ftrace_regs *fregs);
struct tcp_ao_key *tao_ao_lookup(const struct sock *sk, struct sock *addr_sk, int sndid, int rcvid);

#endif /* TAO_OPEN_H */
