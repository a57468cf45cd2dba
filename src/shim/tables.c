// SPDX-License-Identifier: GPL-2.0
/*
 * Tables of functions that the stack calls for an attached socket: copies, with our functions in
 * them, of those that the stack has for IPv4, IPv6, and IPv6 that talks to an IPv4 peer; others
 * have some of their own, such as MPTCP. The kernel's are not exported, so that a copy is made when
 * a socket first shows one, where that can still be refused. Copies live as long as the module.
 */
#include <linux/spinlock.h>
#include <net/tcp.h>
#include "tables.h"

#define TAO_TABLES	8

static struct tao_af {
	const struct tcp_sock_af_ops *orig;
	struct tcp_sock_af_ops ops;
} tao_af[TAO_TABLES];

static struct tao_xmit {
	const struct inet_connection_sock_af_ops *orig;
	struct inet_connection_sock_af_ops ops;
} tao_xmit[TAO_TABLES];

/* Our functions, in the members of a copy that are not the kernel's. */
static const struct tcp_sock_af_ops *tao_ours_af;

/* Taken by callbacks of ftrace, too: nothing under it may sleep, also on PREEMPT_RT. */
static DEFINE_RAW_SPINLOCK(tao_tables_lock);

/* Says what our functions are, before any socket is taken over. */
void tao_tables_init(const struct tcp_sock_af_ops *ours)
{
	tao_ours_af = ours;
}

/*
 * The queue_xmit of a copy: it drops the segment, and the socket gets the table of the kernel's
 * back.
 */
static int tao_queue_drop(struct sock *sk, struct sk_buff *skb, struct flowi *fl)
{
	struct inet_connection_sock *icsk = inet_csk(sk);

	sock_owned_by_me(sk);
	WRITE_ONCE(icsk->icsk_af_ops, container_of_const(icsk->icsk_af_ops, struct tao_xmit,
							 ops)->orig);
	kfree_skb(skb);
	return -ENOKEY;
}

static struct tao_xmit *tao_find_xmit(const struct inet_connection_sock_af_ops *orig)
{
	for (size_t i = 0; i < TAO_TABLES; i++)
		if (smp_load_acquire(&tao_xmit[i].orig) == orig)
			return &tao_xmit[i];
	return NULL;
}

static struct tao_af *tao_find_af(const struct tcp_sock_af_ops *orig)
{
	for (size_t i = 0; i < TAO_TABLES; i++)
		if (smp_load_acquire(&tao_af[i].orig) == orig)
			return &tao_af[i];
	return NULL;
}

/* Whether a table is one of the copies. */
static bool tao_is_our_table(const struct tcp_sock_af_ops *ops)
{
	return (void *)ops >= (void *)tao_af && (void *)ops < (void *)(tao_af + TAO_TABLES);
}

/* The copy of @orig, which may have to be made. NULL: there are too many. */
static struct tao_af *tao_copy_af(const struct tcp_sock_af_ops *orig)
{
	struct tao_af *af;

	guard(raw_spinlock_irqsave)(&tao_tables_lock);
	af = tao_find_af(orig) ?: tao_find_af(NULL);
	if (af && !af->orig) {
		af->ops = *orig;
		af->ops.md5_lookup = tao_ours_af->md5_lookup;
		af->ops.md5_parse = tao_ours_af->md5_parse;
		af->ops.ao_parse = tao_ours_af->ao_parse;
		af->ops.ao_lookup = tao_ours_af->ao_lookup;
		af->ops.ao_calc_key_sk = tao_ours_af->ao_calc_key_sk;
		af->ops.calc_ao_hash = tao_ours_af->calc_ao_hash;
		smp_store_release(&af->orig, orig);
	}
	return af;
}

/* A socket that has this table can be taken over from now on. */
int tao_learn_af(const struct tcp_sock_af_ops *ops)
{
	return tao_is_our_table(ops) || tao_copy_af(ops) ? 0 : -EOPNOTSUPP;
}

/* A socket that has this table can be told to drop a segment (tao_drop_segment()) from now on. */
int tao_learn_xmit(const struct inet_connection_sock_af_ops *orig)
{
	struct tao_xmit *xmit;

	if (tao_find_xmit(orig))
		return 0;
	guard(raw_spinlock_irqsave)(&tao_tables_lock);
	xmit = tao_find_xmit(orig) ?: tao_find_xmit(NULL);
	if (xmit && !xmit->orig) {
		xmit->ops = *orig;
		xmit->ops.queue_xmit = tao_queue_drop;
		smp_store_release(&xmit->orig, orig);
	}
	return xmit ? 0 : -EOPNOTSUPP;
}

/*
 * The stack is to call our functions for @sk, which is locked. connect() may have given it another
 * table of the kernel's, so that this is done more than once.
 */
int tao_take_over(struct sock *sk)
{
	struct tcp_sock *tp = tcp_sk(sk);
	struct tao_af *af;

	sock_owned_by_me(sk);
	if (tao_is_our_table(tp->af_specific))
		return 0;
	af = tao_find_af(tp->af_specific) ?: tao_copy_af(tp->af_specific);
	if (!af)
		return -EOPNOTSUPP;
	/* Others read it without the lock, and find what they read it for: see tao_copy_af(). */
	smp_store_release(&tp->af_specific, &af->ops);
	return 0;
}

/*
 * The kernel's table for @sk, whether @sk has that or our copy. It is loaded once, since the owner
 * of the socket may change it meanwhile.
 */
const struct tcp_sock_af_ops *tao_orig_af(const struct sock *sk)
{
	const struct tcp_sock_af_ops *ops = READ_ONCE(tcp_sk(sk)->af_specific);

	return tao_is_our_table(ops) ? container_of_const(ops, struct tao_af, ops)->orig : ops;
}

/* The stack is to call its own functions for @sk, which is locked. */
void tao_hand_back(struct sock *sk)
{
	sock_owned_by_me(sk);
	WRITE_ONCE(tcp_sk(sk)->af_specific, tao_orig_af(sk));
}

/*
 * The segment that the stack is building for @sk, which is locked, cannot be signed: it must not
 * leave. The stack reads queue_xmit after it had the MAC calculated; the one that it finds now
 * drops this segment and puts the table back. The data stays queued, and timers try again. @err is
 * reported on the socket; 0: it is not told yet.
 */
void tao_drop_segment(struct sock *sk, int err)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct tao_xmit *xmit = tao_find_xmit(icsk->icsk_af_ops);

	sock_owned_by_me(sk);
	if (!WARN_ON_ONCE(!xmit))
		smp_store_release(&icsk->icsk_af_ops, &xmit->ops);
	/* A socket in repair did not ask for anything to be sent. */
	if (!err || tcp_sk(sk)->repair)
		return;
	WRITE_ONCE(sk->sk_err, -err);
	sk_error_report(sk);
}
