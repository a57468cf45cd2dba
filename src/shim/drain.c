// SPDX-License-Identifier: GPL-2.0
/* The end of all that has an attached state, so that the module can be unloaded. */
#include <linux/sched/signal.h>
#include <net/tcp.h>
#include "conn.h"
#include "drain.h"
#include "pin.h"
#include "tables.h"

/* Ends what @sk does, its requests and accepted connections too, and takes its state away. */
static void tao_drain_sock(struct sock *sk)
{
	struct tao_conn *conn;

	tcp_abort(sk, ECONNABORTED);
	if (sk->sk_state == TCP_TIME_WAIT)
		return;
	lock_sock(sk);
	conn = tao_attached(sk);
	/* Its owner may have made a listener of the socket again, which is then met again, too. */
	if (conn && sk->sk_state == TCP_CLOSE) {
		/*
		 * The socket asked for protection, and must not get a connection without: it is
		 * bound to an interface that cannot exist. A port that it is bound to is of the
		 * interface that it had, and listen() would look for the port under the new one.
		 */
		if (inet_csk(sk)->icsk_bind_hash)
			sk->sk_prot->put_port(sk);
		WRITE_ONCE(sk->sk_bound_dev_if, -1);
		rcu_assign_pointer(tcp_sk(sk)->ao_info, NULL);
		tao_hand_back(sk);
		tao_leave(conn, false);
	}
	release_sock(sk);
}

/*
 * Takes all attached state off all sockets, for good: none gets any from now on. When it returns 0
 * nothing pins the module. May sleep.
 */
int tao_drain(void)
{
	struct sock *sk;
	bool none;

	tao_pin_no_more();
	while (1) {
		sk = tao_any_pinned(&none);
		if (none)
			break;
		if (signal_pending(current)) {
			if (sk)
				sock_gen_put(sk);
			return -EINTR;
		}
		if (sk) {
			tao_drain_sock(sk);
			sock_gen_put(sk);
		} else {
			schedule_timeout_interruptible(1);
		}
	}
	/* The last state has left the list, and lets go of the module a moment later. */
	rcu_barrier();
	tao_let_go_of_all();
	return 0;
}
