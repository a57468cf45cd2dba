/* SPDX-License-Identifier: GPL-2.0 */
/* Who answers for sockets that never asked. */
#ifndef TAO_STANDIN_H
#define TAO_STANDIN_H

#include <linux/jump_label.h>
#include <net/sock.h>
#include "net.h"
#include "tao.h"

/* On from the first policy of the machine. */
DECLARE_STATIC_KEY_FALSE(tao_has_stand_in);

/* The state that stands in for listeners of the namespace of @sk; NULL: there was no policy yet. */
static inline struct tao_conn *tao_stand_in(const struct sock *sk)
{
	return static_branch_unlikely(&tao_has_stand_in) ? tao_net_stand_in(sock_net(sk)) : NULL;
}

struct tao_conn *tao_stand_in_for(const struct sock *sk, const void *addr, __u16 family);
struct tao_conn *tao_stand_in_for_sock(const struct sock *sk);
struct tao_conn *tao_of_listener(const struct sock *sk, struct tcp_ao_info *info);

#endif /* TAO_STANDIN_H */
