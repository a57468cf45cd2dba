// SPDX-License-Identifier: GPL-2.0
/* Socket options. */
#include <linux/module.h>
#include <net/tcp.h>
#include "conn.h"
#include "hook.h"
#include "open.h"
#include "rust.h"
#include "sockopt.h"
#include "tables.h"

/* The options of the kernel's TCP-AO have the numbers of ours, or come behind them. */
static_assert(TCP_AO_ADD_KEY == TCP_AUTHOPT && TCP_AO_DEL_KEY == TCP_AUTHOPT_KEY &&
	      TCP_AO_INFO == TCP_REPAIR_AUTHOPT && TCP_AO_REPAIR == TCP_AO_ADD_KEY + 4);

bool tao_ours_sockopt(struct ftrace_regs *fregs)
{
	int level = TAO_ARG(fregs, 1, int), optname = TAO_ARG(fregs, 2, int);

	return level == SOL_TCP && optname >= TCP_AO_ADD_KEY && optname <= TCP_AO_REPAIR;
}

/* Every option of TCP, of whatever program: nearly all are told from ours here. */
void notrace tao_call_sockopt(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			      struct ftrace_regs *fregs)
{
	if (tao_ask(tao_ours_sockopt, fregs))
		tao_call_unused_too(ip, parent_ip, ops, fregs);
}

/* Process context; may sleep. */
int tao_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval, unsigned int optlen)
{
	struct tao_sockopt call = { sk, optname, optlen, optval, {} };
	int ret = tao_rust_setsockopt(&call);

	if (ret == TAO_NOT_OURS)
		ret = tcp_prot.setsockopt(sk, level, optname, optval, optlen);
	module_put(THIS_MODULE);
	return ret;
}

int tao_getsockopt(struct sock *sk, int level, int optname, char __user *optval, int __user *optlen)
{
	struct tao_sockopt call = { sk, optname, 0, USER_SOCKPTR(optval), USER_SOCKPTR(optlen) };
	int ret = tao_rust_getsockopt(&call);

	if (ret == TAO_NOT_OURS)
		ret = tcp_prot.getsockopt(sk, level, optname, optval, optlen);
	module_put(THIS_MODULE);
	return ret;
}

/*
 * TCP_MD5SIG: the socket is locked. The kernel's function asks whether the peer must use AO, and
 * then refuses. For a connection that is protected that is right. Before there is one it is not,
 * since MD5 keys go well with ours, and it is told no: see tao_do_lookup().
 */
int tao_md5_parse(struct sock *sk, int optname, sockptr_t optval, int optlen)
{
	struct tao_conn *conn = tao_attached(sk);
	int err;

	/* Its last connection may have ended without a call of the program's. */
	if (conn && sk->sk_state == TCP_CLOSE)
		tao_not_connected(conn);
	if (conn && tao_rust_takes_md5(conn))
		WRITE_ONCE(conn->md5_setter, current);
	err = tao_orig_af(sk)->md5_parse(sk, optname, optval, optlen);
	if (conn)
		WRITE_ONCE(conn->md5_setter, NULL);
	return err;
}

int tao_ao_parse(struct sock *sk, int optname, sockptr_t optval, int optlen)
{
	return -EBUSY;
}
