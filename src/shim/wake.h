/* SPDX-License-Identifier: GPL-2.0 */
/* What the first socket that asks for authentication turns on for all of the machine. */
#ifndef TAO_WAKE_H
#define TAO_WAKE_H

#include <net/tcp.h>

/* The kernel's table for IPv4. Set before there is a state. */
extern const struct tcp_sock_af_ops *tao_v4_ops;

int tao_wake(void);
void tao_wake_exit(void);

#endif /* TAO_WAKE_H */
