/* SPDX-License-Identifier: GPL-2.0 */
/* Network namespaces: their keys, VRFs, /proc/net/tcp_authopt and their sysctls. */
#ifndef TAO_NET_H
#define TAO_NET_H

#include <linux/jump_label.h>
#include <net/sock.h>
#include "tao.h"

/* On from the first policy of the machine. */
DECLARE_STATIC_KEY_FALSE(tao_has_stand_in);

struct tao_net *tao_net_get(struct net *net);
struct tao_conn *tao_net_stand_in(struct net *net);
int tao_net_make_stand_in(struct net *net);
__u32 tao_vrf_at(struct net *net, __u32 l3index);
int tao_net_init(void);
void tao_net_exit(void);

/*
 * The state that stands in for listeners of the namespace of @sk (standin.c); NULL: there was no
 * policy yet.
 */
static inline struct tao_conn *tao_stand_in(const struct sock *sk)
{
	return static_branch_unlikely(&tao_has_stand_in) ? tao_net_stand_in(sock_net(sk)) : NULL;
}

#endif /* TAO_NET_H */
