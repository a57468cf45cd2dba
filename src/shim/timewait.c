// SPDX-License-Identifier: GPL-2.0
/* How a connection ends: TIME-WAIT, and the end of a socket. */
#include <net/inet_timewait_sock.h>
#include <net/tcp.h>
#include "conn.h"
#include "ends.h"
#include "hook.h"
#include "rust.h"
#include "segment.h"
#include "timewait.h"

bool tao_ours_time_wait(struct ftrace_regs *fregs)
{
	return tao_attached(TAO_ARG(fregs, 1, const struct sock *));
}

void tao_time_wait(struct tcp_timewait_sock *tcptw, struct tcp_sock *tp)
{
	struct sock *sk = (struct sock *)tp;
	struct tao_conn *conn = tao_attached(sk);

	sock_owned_by_me(sk);
	tao_share(conn, &tcptw->tw_sk, tao_rcv_place(sk, conn));
}

/*
 * The stack verifies nothing in TIME-WAIT. What fails goes no further, and nothing does while there
 * is no key to sign an answer with, which reply.c does. A SYN that opens a new connection meets the
 * listener's check too.
 *
 * This is a callback of ftrace, which has preemption disabled if the function has a tracer, too.
 * The allocator may sleep then on PREEMPT_RT, whatever it is asked for.
 */
bool tao_before_timewait(struct ftrace_regs *fregs)
{
	const struct inet_timewait_sock *tw = TAO_ARG(fregs, 0, const struct inet_timewait_sock *);
	const struct sk_buff *skb = TAO_ARG(fregs, 1, const struct sk_buff *);
	struct tao_conn *conn = tao_attached_tw(tw);
	struct tao_numbers numbers;
	struct tao_segment seg;

	if (!conn)
		return false;
	numbers = (struct tao_numbers) {
		.lisn = ntohl(conn->info.lisn),
		.risn = ntohl(conn->info.risn),
		.sne = conn->tw_rcv >> 32,
		.seq = conn->tw_rcv,
	};
	tao_segment_of_skb(skb, tao_family_of_skb(skb), tao_side_of_conn(conn), &seg);
	return tao_rust_receive(conn, (const struct sock *)tw, &seg, 0, TAO_TIME_WAIT, &numbers);
}

enum tcp_tw_status tao_timewait_drop(struct inet_timewait_sock *tw, struct sk_buff *skb,
				     const struct tcphdr *th, u32 *tw_isn,
				     enum skb_drop_reason *drop_reason)
{
	*drop_reason = SKB_DROP_REASON_TCP_AOFAILURE;
	inet_twsk_put(tw);
	return TCP_TW_SUCCESS;
}

/*
 * What a socket, or a TIME-WAIT socket, has at ao_info in its end: nobody has a reference to it any
 * more, so that nothing has to be locked.
 */
static struct tcp_ao_info *tao_last_ao_info(const struct sock *sk, bool twsk)
{
	bool is_last = !refcount_read(&sk->sk_refcnt);

	if (twsk)
		return rcu_dereference_protected(tcp_twsk(sk)->ao_info, is_last);
	return rcu_dereference_protected(tcp_sk(sk)->ao_info, is_last);
}

bool tao_before_destroy(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	bool twsk = TAO_ARG(fregs, 1, unsigned long) & 0xff;

	/* tcp_connect() calls the function for a socket that lives on, with MD5. */
	if (!twsk && refcount_read(&sk->sk_refcnt))
		return false;
	if (!twsk)
		tao_forget(sk);
	return tao_ours(tao_last_ao_info(sk, twsk));
}

void tao_destroy_sock(struct sock *sk, bool twsk)
{
	struct tao_conn *conn = tao_ours(tao_last_ao_info(sk, twsk));

	if (twsk)
		rcu_assign_pointer(tcp_twsk(sk)->ao_info, NULL);
	else
		rcu_assign_pointer(tcp_sk(sk)->ao_info, NULL);
	tao_leave(conn, twsk);
}
