/* SPDX-License-Identifier: GPL-2.0 */
/* Who answers for sockets that never asked. */
#ifndef TAO_STANDIN_H
#define TAO_STANDIN_H

#include "tao.h"

struct tao_conn *tao_stand_in_for(const struct sock *sk, const void *addr, __u16 family);
struct tao_conn *tao_stand_in_for_sock(const struct sock *sk);
struct tao_conn *tao_of_listener(const struct sock *sk, struct tcp_ao_info *info);
int tao_make_stand_in(const struct sock *sk);

#endif /* TAO_STANDIN_H */
