// SPDX-License-Identifier: GPL-2.0
/* What the first socket that asks for authentication turns on for all of the machine. */
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/workqueue.h>
#include <net/tcp.h>
#include "hook.h"
#include "tables.h"
#include "wake.h"

static struct socket *tao_key_socket;
const struct tcp_sock_af_ops *tao_v4_ops;
static DEFINE_MUTEX(tao_wake_lock);

/*
 * The stack looks at ao_info while the static key tcp_ao_needed is on, which is not exported. A
 * socket with TCP-AO options but no keys holds it for us.
 */
static int tao_make_key_socket(void)
{
	struct tcp_ao_info_opt none = {};
	struct socket *sock;
	int err;

	err = sock_create_kern(&init_net, PF_INET, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (err)
		return err;
	err = tcp_prot.setsockopt(sock->sk, SOL_TCP, TCP_AO_INFO, KERNEL_SOCKPTR(&none),
				  sizeof(none));
	if (err) {
		sock_release(sock);
		return err;
	}
	/* A connected IPv6 socket can change to the tables of IPv4 (IPV6_ADDRFORM). */
	err = tao_learn_xmit(inet_csk(sock->sk)->icsk_af_ops);
	if (WARN_ON(err)) {
		sock_release(sock);
		return err;
	}
	tao_v4_ops = tcp_sk(sock->sk)->af_specific;
	tao_key_socket = sock;
	static_branch_enable(&tao_in_use);
	return 0;
}

struct tao_wake {
	struct work_struct work;
	int err;
};

static void tao_wake_work(struct work_struct *work)
{
	struct tao_wake *wake = container_of(work, struct tao_wake, work);

	wake->err = tao_make_key_socket();
}

/*
 * The key socket is the machine's, and lives as long as the module. So a task of the kernel's makes
 * it: made by the first user, it would be charged to a memory cgroup that could then never go, and
 * rules about that user's sockets might forbid it. May sleep.
 */
int tao_wake(void)
{
	struct tao_wake wake = {};

	guard(mutex)(&tao_wake_lock);
	if (tao_key_socket)
		return 0;
	INIT_WORK_ONSTACK(&wake.work, tao_wake_work);
	queue_work(system_dfl_wq, &wake.work);
	flush_work(&wake.work);
	destroy_work_on_stack(&wake.work);
	return wake.err;
}

/* The hooks are gone, and no socket has state. */
void tao_wake_exit(void)
{
	if (tao_key_socket)
		sock_release(tao_key_socket);
}
