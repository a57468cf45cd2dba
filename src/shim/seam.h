/* SPDX-License-Identifier: GPL-2.0 */
/* The seam: what is replaced of the stack's own TCP-AO. */
#ifndef TAO_SEAM_H
#define TAO_SEAM_H

#include <net/tcp.h>

/* What goes into the copies of tcp_sock_af_ops; other members are the kernel's. */
extern const struct tcp_sock_af_ops tao_af_ops;

int tao_seam_attach(void);
void tao_seam_detach(void);

#endif /* TAO_SEAM_H */
