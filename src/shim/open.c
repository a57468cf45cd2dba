// SPDX-License-Identifier: GPL-2.0
/* How a connection begins at this end: connect() and listen(). */
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <net/mptcp.h>
#include <net/tcp.h>
#include "conn.h"
#include "ends.h"
#include "hook.h"
#include "net.h"
#include "open.h"
#include "pin.h"
#include "rust.h"
#include "standin.h"
#include "tables.h"

/*
 * The connection of @sk, which is locked, is to be protected, and @conn is its state from now on.
 */
int tao_protect(struct sock *sk, struct tao_conn *conn)
{
	int err;

	sock_owned_by_me(sk);
	/* No connection begins during a drain, which has to come to its end. */
	if (tao_is_draining())
		return -ENODEV;
	err = tao_learn_xmit(inet_csk(sk)->icsk_af_ops);
	if (err)
		return err;
	/*
	 * Whoever finds the state finds all of it. With ao_required the stack takes nothing unsigned
	 * even where it does not ask us.
	 */
	conn->info.ao_required = 1;
	WRITE_ONCE(conn->rcv_shift, 0);
	tao_set_side(conn, tao_side_of_sock(sk));
	err = tao_attached(sk) == conn ? tao_take_over(sk) : tao_attach(sk, conn);
	if (err)
		return err;
#if IS_ENABLED(CONFIG_SMC)
	/* AF_SMC would leave TCP once the handshake is over: the data is to be signed, too. */
	tcp_sk(sk)->syn_smc = 0;
#endif
	/*
	 * A MAC is for one segment: nobody below may cut one into several. The limit comes from the
	 * route, which the socket may have had before.
	 */
	sk_gso_disable(sk);
	sk->sk_gso_max_segs = 1;
	return 0;
}

/* The socket of @conn, which is locked, has no connection: it listens, or connect() has failed. */
void tao_not_connected(struct tao_conn *conn)
{
	sock_owned_by_me(conn->sk);
	conn->info.ao_required = 0;
	tao_rust_not_connected(conn);
}

/*
 * A protected connection begins on a socket that had no state attached, but can be found already.
 * What came for the socket so far was not checked, and waits in the backlog, since the socket is
 * locked. None of it can be an answer, for nothing was sent yet. May sleep.
 */
static void tao_drop_backlog(struct sock *sk)
{
	struct sk_buff *skb, *next;

	sock_owned_by_me(sk);
	/* Whoever saw no state holds an RCU read lock until the segment is in the backlog. */
	synchronize_rcu();
	spin_lock_bh(&sk->sk_lock.slock);
	skb = sk->sk_backlog.head;
	WRITE_ONCE(sk->sk_backlog.head, NULL);
	WRITE_ONCE(sk->sk_backlog.tail, NULL);
	sk->sk_backlog.len = 0;
	spin_unlock_bh(&sk->sk_lock.slock);
	for (; skb; skb = next) {
		next = skb->next;
		skb_mark_not_on_list(skb);
		NET_INC_STATS(sock_net(sk), LINUX_MIB_TCPAOBAD);
		kfree_skb_reason(skb, SKB_DROP_REASON_TCP_AOFAILURE);
	}
}

/*
 * A protected socket has connected in repair. The stack leaves AO out of the header's length when
 * the answer to a SYN comes (tcp_rcv_synsent_state_process()), which is never here: it is done now,
 * so that header prediction, which takes no notice of a timestamp beside AO, never matches. The
 * MSS, which was computed with that length, is computed again.
 */
static void tao_connected_in_repair(struct sock *sk, struct tao_conn *conn)
{
	struct tcp_sock *tp = tcp_sk(sk);

	sock_owned_by_me(sk);
	tp->tcp_header_len -= tcp_ao_len_aligned(&conn->key);
	tp->pred_flags = 0;
	inet_csk(sk)->icsk_pmtu_cookie = 0;
}

/*
 * Whether a policy requires the connection that @sk is about to open to be protected. Callbacks first
 * see whether there are policies: no more is to be paid where there are none.
 */
static noinline bool tao_is_required(const struct sock *sk)
{
	const struct tao_conn *stand_in = tao_stand_in_for_sock(sk);
	struct tao_ends ends;

	if (!stand_in)
		return false;
	tao_ends_of_sock(sk, &ends);
	return tao_rust_required(stand_in, &ends);
}

/* A socket with state, or one whose connection has to be protected whatever it asked. */
bool tao_ours_connect(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);

	return tao_find(sk) || (tao_stand_in(sk) && tao_is_required(sk));
}

/*
 * TCP_FASTOPEN_CONNECT: connect() would send nothing yet, and leave the socket for others to answer
 * that nobody has verified. One that never asked, and has to be protected, sends its SYN now; one that
 * asked is told by its first send() if that was so.
 */
bool tao_ours_defer(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);

	return !tao_find(sk) && tao_stand_in(sk) && tao_is_required(sk);
}

bool tao_do_not_defer(struct sock *sk, int *err)
{
	return false;
}

/*
 * A state for @sk, which never asked for one. Whoever connects may be in the middle of what must not
 * begin I/O, and has told the socket so.
 */
static struct tao_conn *tao_conn_for(struct sock *sk)
{
	gfp_t gfp = sk->sk_allocation;
	unsigned int nofs = gfp & __GFP_FS ? 0 : memalloc_nofs_save();
	unsigned int noio = gfp & __GFP_IO ? 0 : memalloc_noio_save();
	struct tao_conn *conn = tao_rust_conn_for(sk, gfpflags_allow_blocking(gfp));

	if (!(gfp & __GFP_IO))
		memalloc_noio_restore(noio);
	if (!(gfp & __GFP_FS))
		memalloc_nofs_restore(nofs);
	return conn;
}

/*
 * Makes @sk what its connection is to be, protected or not. *@conn is its state, if it has any, and
 * may be another one afterwards: the last connection of the socket may be in TIME-WAIT still, and
 * keeps the one that it has.
 */
static int tao_prepare_connect(struct sock *sk, struct tao_conn **conn)
{
	int protect, err = 0;
	bool watched;

	/* A policy has protected its last connection. */
	if (*conn && !tao_rust_asked(*conn)) {
		tao_take_away(sk, *conn);
		*conn = NULL;
	}
	watched = tao_attached(sk);
	if (!*conn) {
		if (!tao_is_required(sk))
			return 0;
		*conn = tao_conn_for(sk);
		if (!*conn)
			return -ENOMEM;
	} else if (refcount_read(&(*conn)->info.refcnt) > 1) {
		err = tao_replace(sk, conn);
		if (err)
			return err;
	}
	protect = tao_rust_connect(*conn, sk, sk_is_mptcp(sk));
	if (protect < 0)
		return protect;
	if (protect) {
		err = tao_protect(sk, *conn);
	} else if (tao_rust_asked(*conn)) {
		err = tao_park(sk, *conn);
	} else {
		tao_take_away(sk, *conn);
		*conn = NULL;
	}
	if (err)
		return err;
	if (!watched && tao_attached(sk))
		tao_drop_backlog(sk);
	return 0;
}

/*
 * A socket with state of the kernel's own TCP-AO connects, to whom a policy requires protection. The
 * stack refuses what it has no key for, but goes on with an MD5 key if it has one.
 */
static int tao_prepare_native(struct sock *sk)
{
	const struct tao_conn *stand_in = tao_stand_in(sk);
	struct tao_ends ends;

	/* The namespace of a socket of the kernel's may be going. */
	if (!stand_in)
		return 0;
	tao_ends_of_sock(sk, &ends);
	return tao_rust_refuses_native(stand_in, sk, &ends,
				       tcp_sk(sk)->af_specific->ao_lookup(sk, sk, -1, -1)) ?
	       -EKEYREJECTED : 0;
}

int tao_connect(struct sock *sk)
{
	/* The caller has the socket locked, so that its state stays. */
	struct tao_conn *conn = tao_find(sk);
	int err;

	sock_owned_by_me(sk);
	err = tao_has_native(sk) ? tao_prepare_native(sk) : tao_prepare_connect(sk, &conn);
	/* The hook knows this call by where it returns to: it must not be the last of a function. */
	if (!err)
		err = tcp_connect(sk);
	if (err && conn && tao_rust_asked(conn))
		tao_not_connected(conn);
	else if (err && conn)
		tao_take_away(sk, conn);
	else if (!err && tcp_sk(sk)->repair && tao_attached(sk))
		tao_connected_in_repair(sk, conn);
	module_put(THIS_MODULE);
	return err;
}

/*
 * Whether the stack must not go on with the answer to the SYN of @sk, or with a SYN that crossed it:
 * nothing was required when that SYN left, so that it was not signed, and now it is.
 */
static noinline bool tao_refuses_answer(const struct sock *sk)
{
	struct tcp_ao_info *info = tao_ao_info(sk);
	const struct tao_conn *stand_in;
	struct tao_ends ends;

	if (tao_ours(info))
		return false;
	stand_in = tao_stand_in_for_sock(sk);
	if (!stand_in)
		return false;
	tao_ends_of_sock(sk, &ends);
	return info ? tao_rust_refuses_native(stand_in, sk, &ends, true) :
		      tao_rust_refuses_answer(stand_in, sk, &ends);
}

/*
 * The answer is taken for a reset: tcp_reset() has the prototype of tcp_finish_connect(). The stack
 * goes on with a closed socket then, for which it sends no ACK; but it would keep the data of an
 * answer to a SYN with data. In repair there is no answer, and tao_connect() has just decided.
 */
bool tao_before_finish_connect(struct ftrace_regs *fregs)
{
	struct sock *sk = TAO_ARG(fregs, 0, struct sock *);

	if (!tao_stand_in(sk) || !TAO_ARG(fregs, 1, const struct sk_buff *) ||
	    !tao_refuses_answer(sk))
		return false;
	tcp_sk(sk)->syn_fastopen = 0;
	tcp_sk(sk)->syn_data = 0;
	return true;
}

/* SYNs have crossed: tcp_done() takes the place of the SYN-ACK. The program is told the same. */
bool tao_before_send_synack(struct ftrace_regs *fregs)
{
	struct sock *sk = TAO_ARG(fregs, 0, struct sock *);

	if (!tao_stand_in(sk) || !tao_refuses_answer(sk))
		return false;
	WRITE_ONCE(sk->sk_err, ECONNREFUSED);
	return true;
}

/*
 * A socket whose last connection was not protected listens: from now on unsigned segments of peers
 * with keys must be dropped, so that its state is attached again, before the first SYN.
 */
bool tao_before_listen(struct ftrace_regs *fregs)
{
	struct sock *sk = TAO_ARG(fregs, 0, struct sock *);
	struct tao_conn *conn = tao_find(sk);

	if (!conn)
		return false;
	if (!tao_rust_asked(conn)) {
		tao_take_away(sk, conn);
		return false;
	}
	tao_not_connected(conn);
	return tao_attached(sk) ? tao_take_over(sk) : tao_attach(sk, conn);
}

int tao_refuse_listen(struct sock *sk)
{
	return -EBUSY;
}

/* What a socket with an attached state sends is never signed with MD5. */
struct tcp_md5sig_key *tao_md5_lookup(const struct sock *sk, const struct sock *addr_sk)
{
	return NULL;
}

/* The question of tao_ao_lookup(), of a listener that has no table of ours. */
bool tao_ours_ao_lookup(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);

	return READ_ONCE(sk->sk_state) == TCP_LISTEN && !tao_ao_info(sk) && tao_stand_in(sk);
}

/*
 * The stack asks before a SYN (NULL: do not send it), and before the SYN-ACK for the request @addr_sk,
 * of which tao_may_answer() has decided.
 */
struct tcp_ao_key *tao_ao_lookup(const struct sock *sk, struct sock *addr_sk, int sndid, int rcvid)
{
	struct tao_conn *conn = tao_of_listener(sk, tao_ao_info(sk));

	return conn ? &conn->key : NULL;
}
