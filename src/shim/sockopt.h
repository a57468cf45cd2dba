/* SPDX-License-Identifier: GPL-2.0 */
/* Socket options. */
#ifndef TAO_SOCKOPT_H
#define TAO_SOCKOPT_H

#include <linux/ftrace.h>
#include <linux/sockptr.h>
#include "tao.h"

bool tao_ours_sockopt(struct ftrace_regs *fregs);
void tao_call_sockopt(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
		      struct ftrace_regs *fregs);
int tao_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval, unsigned int optlen);
int tao_getsockopt(struct sock *sk, int level, int optname, char __user *optval,
		   int __user *optlen);
int tao_md5_parse(struct sock *sk, int optname, sockptr_t optval, int optlen);
int tao_ao_parse(struct sock *sk, int optname, sockptr_t optval, int optlen);

#endif /* TAO_SOCKOPT_H */
