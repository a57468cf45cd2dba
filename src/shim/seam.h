/* SPDX-License-Identifier: GPL-2.0 */
/* The seam: what is replaced of the stack's own TCP-AO. Its tables of hooks are for hook.c. */
#ifndef TAO_SEAM_H
#define TAO_SEAM_H

#include <net/tcp.h>

/* What goes into the copies of tcp_sock_af_ops; other members are the kernel's. */
extern const struct tcp_sock_af_ops tao_af_ops;

#endif /* TAO_SEAM_H */
