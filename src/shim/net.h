/* SPDX-License-Identifier: GPL-2.0 */
/* Network namespaces: their keys, VRFs, /proc/net/tcp_authopt and their sysctls. */
#ifndef TAO_NET_H
#define TAO_NET_H

#include "tao.h"

struct tao_net *tao_net_get(struct net *net);
struct tao_conn *tao_net_stand_in(struct net *net);
int tao_net_make_stand_in(struct net *net);
__u32 tao_vrf_at(struct net *net, __u32 l3index);
int tao_net_init(void);
void tao_net_exit(void);

#endif /* TAO_NET_H */
