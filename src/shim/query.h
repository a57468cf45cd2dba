/* SPDX-License-Identifier: GPL-2.0 */
/* What Rust asks of a socket. */
#ifndef TAO_QUERY_H
#define TAO_QUERY_H

#include "tao.h"

struct tao_net *tao_net_of(const struct sock *sk);
bool tao_md5_wanted(const struct sock *sk, const struct tao_segment *seg, int l3index);
void tao_forget_leftover(struct sock *sk);
__u8 tao_sk_state(const struct sock *sk);
__u16 tao_sk_family(const struct sock *sk);
bool tao_sk_in_repair(const struct sock *sk);
void tao_sk_lock(struct sock *sk);
void tao_sk_unlock(struct sock *sk);
void tao_repair_get(const struct sock *sk, const struct tao_conn *conn,
		    struct tcp_repair_authopt *repair);
void tao_repair_set(struct sock *sk, struct tao_conn *conn,
		    const struct tcp_repair_authopt *repair);
void tao_count(const struct sock *sk, int mib);

#endif /* TAO_QUERY_H */
