/* SPDX-License-Identifier: GPL-2.0 */
/* Tables of functions that the stack calls for a socket: copies with functions of ours in them. */
#ifndef TAO_TABLES_H
#define TAO_TABLES_H

#include <net/tcp.h>

void tao_tables_init(const struct tcp_sock_af_ops *ours);
int tao_learn_af(const struct tcp_sock_af_ops *ops);
int tao_learn_xmit(const struct inet_connection_sock_af_ops *orig);
int tao_take_over(struct sock *sk);
const struct tcp_sock_af_ops *tao_orig_af(const struct sock *sk);
void tao_hand_back(struct sock *sk);
void tao_drop_segment(struct sock *sk, int err);

#endif /* TAO_TABLES_H */
