// SPDX-License-Identifier: GPL-2.0
/*
 * A socket's state: where the stack finds it, and how long it lives.
 *
 * Attached: tcp_sock.ao_info (or that of the TIME-WAIT socket) points to it. To the stack this says
 * that every segment carries AO, so it is so for listeners, for sockets that have not connected yet
 * and for protected connections only. The state pins the module, and is in a list for tao_drain().
 *
 * Parked: the connection is not protected. The state is found in a table by the address of its
 * socket, and pins nothing.
 *
 * Either way it goes with its socket (tao_destroy_sock() in seam.c), after an RCU grace period:
 * segments are checked without the socket lock.
 */
#include <linux/module.h>
#include <linux/rhashtable.h>
#include <linux/seqlock.h>
#include <linux/workqueue.h>
#include <net/l3mdev.h>
#include <net/secure_seq.h>
#include <net/tcp.h>
#include "conn.h"
#include "hook.h"

/* In tcp_ao_info.__unused, which the kernel leaves zero. */
#define TAO_MARK	0x0a0717ad

/* Its address marks our keys; nothing else can point to it. */
struct hlist_node *tao_key_mark;

static const struct rhashtable_params tao_parked_params = {
	.head_offset = offsetof(struct tao_conn, parked),
	.key_offset = offsetof(struct tao_conn, sk),
	.key_len = sizeof_field(struct tao_conn, sk),
	.automatic_shrinking = true,
};

static struct rhashtable tao_parked_table;

/*
 * States that pin the module, until their memory is freed. Which socket has one is under the lock,
 * which is taken by callbacks of ftrace too, with preemption disabled: also on PREEMPT_RT, nothing
 * under it may sleep.
 */
static LIST_HEAD(tao_all_attached);
static DEFINE_RAW_SPINLOCK(tao_attached_lock);
static bool tao_draining;

static_assert(offsetof(struct tao_conn, info) == 0);
static_assert(sizeof(struct tao_reply) <= TAO_REPLY_ROOM);

/* NULL if it is of the kernel's own TCP-AO, or nothing. */
struct tao_conn *tao_ours(struct tcp_ao_info *info)
{
	return info && info->__unused == TAO_MARK ? (struct tao_conn *)info : NULL;
}

/* State attached to a full socket. Caller holds the socket lock or an RCU read lock. */
struct tao_conn *tao_attached(const struct sock *sk)
{
	return tao_ours(rcu_dereference_raw(tcp_sk(sk)->ao_info));
}

struct tao_conn *tao_parked(const struct sock *sk)
{
	if (!atomic_read(&tao_parked_table.nelems))
		return NULL;
	return rhashtable_lookup_fast(&tao_parked_table, &sk, tao_parked_params);
}

/*
 * The state of a socket, wherever it is. One that is parked counts for nothing beside state of the
 * kernel's TCP-AO, which a thread may have added while another one asked for ours: the socket is the
 * kernel's then, and whoever took it for one without protection would accept what has to be verified.
 */
struct tao_conn *tao_find(const struct sock *sk)
{
	struct tcp_ao_info *info = rcu_dereference_raw(tcp_sk(sk)->ao_info);

	if (!info)
		return tao_parked(sk);
	return tao_ours(info);
}

/* State of the kernel's own TCP-AO. */
bool tao_has_native(const struct sock *sk)
{
	struct tcp_ao_info *info = rcu_dereference_raw(tcp_sk(sk)->ao_info);

	return info && !tao_ours(info);
}

/*
 * Random bytes of this boot, which nobody knows and nothing is ever signed with: the key of every
 * placeholder, and its traffic keys. All code of the stack that would sign or verify with them is
 * hooked. Were a hook ever missed, no segment that somebody else has signed would be right.
 */
static struct {
	u8	key[TCP_AO_MAXKEYLEN];
	u8	traffic_keys[TAO_TRAFFIC_KEYS];
} tao_nobody;

/* @conn is zeroed. */
void tao_conn_init(struct tao_conn *conn, struct sock *sk)
{
	INIT_LIST_HEAD(&conn->attached);
	seqcount_init(&conn->seq);
	INIT_HLIST_HEAD(&conn->info.head);
	conn->info.current_key = &conn->key;
	conn->info.rnext_key = &conn->key;
	conn->info.__unused = TAO_MARK;
	refcount_set(&conn->info.refcnt, 1);
	conn->sk = sk;
	conn->key.node.pprev = &tao_key_mark;
	conn->key.algo = TCP_AO_ALGO_HMAC_SHA1;
	conn->key.digest_size = TAO_REPLY_ROOM;
	conn->key.maclen = TAO_MAC_LEN;
	conn->key.keylen = sizeof(tao_nobody.key);
	memcpy(conn->key.key, tao_nobody.key, sizeof(tao_nobody.key));
	memcpy(conn->traffic_keys, tao_nobody.traffic_keys, sizeof(tao_nobody.traffic_keys));
}

/*
 * For tcp_ao_ignore_icmp(). The field shares its word with the mark and is stored as the stack itself
 * does it, under the socket lock: the bits beside it do not change, so that whoever reads them
 * without the lock finds what was there.
 */
void tao_accept_icmp(struct tao_conn *conn, bool accept)
{
	conn->info.accept_icmps = accept;
}

/* Joins the states that pin the module. Fails while that is drained or unloaded. */
static int tao_pin(struct tao_conn *conn)
{
	guard(raw_spinlock_irqsave)(&tao_attached_lock);
	if (tao_draining || !try_module_get(THIS_MODULE))
		return -ENODEV;
	list_add(&conn->attached, &tao_all_attached);
	return 0;
}

/* @conn may be one that is parked, and pins nothing. */
static bool tao_unlist(struct tao_conn *conn)
{
	bool pinned;

	guard(raw_spinlock_irqsave)(&tao_attached_lock);
	pinned = !list_empty(&conn->attached);
	list_del_init(&conn->attached);
	return pinned;
}

static void tao_conn_free_rcu(struct rcu_head *head)
{
	struct tao_conn *conn = container_of(head, struct tao_conn, info.rcu);
	bool pinned = tao_unlist(conn);

	tao_rust_conn_free(conn);
	if (pinned)
		module_put(THIS_MODULE);
}

void tao_conn_put(struct tao_conn *conn)
{
	if (refcount_dec_and_test(&conn->info.refcnt))
		call_rcu(&conn->info.rcu, tao_conn_free_rcu);
}

/*
 * The TIME-WAIT socket of an attached socket gets the state, too. @rcv: where the peer is in its
 * stream, which a TIME-WAIT socket takes no further than a FIN.
 */
void tao_share(struct tao_conn *conn, struct tcp_timewait_sock *tcptw, u64 rcv)
{
	refcount_inc(&conn->info.refcnt);
	conn->tw_rcv = rcv;
	scoped_guard(raw_spinlock_irqsave, &tao_attached_lock)
		conn->tw = &tcptw->tw_sk;
	rcu_assign_pointer(tcptw->ao_info, &conn->info);
}

/* The socket, or the TIME-WAIT socket, goes. */
void tao_leave(struct tao_conn *conn, bool twsk)
{
	scoped_guard(raw_spinlock_irqsave, &tao_attached_lock) {
		if (twsk)
			conn->tw = NULL;
		else
			conn->sk = NULL;
	}
	tao_conn_put(conn);
}

/* The socket is going: whatever is parked for it goes too. */
void tao_forget(const struct sock *sk)
{
	struct tao_conn *conn;

	rcu_read_lock();
	conn = tao_parked(sk);
	if (conn && !rhashtable_remove_fast(&tao_parked_table, &conn->parked, tao_parked_params))
		tao_conn_put(conn);
	rcu_read_unlock();
}

/*
 * Tables of functions that the stack calls for an attached socket, one for each that it has:
 * IPv4, IPv6, and IPv6 that talks to an IPv4 peer; others have some of their own, such as MPTCP.
 * They are copies with our functions in them. The kernel's are not exported, so a copy is made when
 * a socket first shows one, where that can still be refused; they live as long as the module.
 */
#define TAO_TABLES	8

static struct tao_af {
	const struct tcp_sock_af_ops *orig;
	struct tcp_sock_af_ops ops;
} tao_af[TAO_TABLES];

static struct tao_xmit {
	const struct inet_connection_sock_af_ops *orig;
	struct inet_connection_sock_af_ops ops;
} tao_xmit[TAO_TABLES];

/* For callbacks of ftrace, as tao_attached_lock. */
static DEFINE_RAW_SPINLOCK(tao_tables_lock);

static int tao_queue_drop(struct sock *sk, struct sk_buff *skb, struct flowi *fl)
{
	struct inet_connection_sock *icsk = inet_csk(sk);

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

static bool tao_is_our_table(const struct tcp_sock_af_ops *ops)
{
	return ops->calc_ao_hash == tao_calc_ao_hash;
}

/* Makes the copy of a table that is new. NULL: there are too many. */
static struct tao_af *tao_learn_af(const struct tcp_sock_af_ops *orig)
{
	struct tao_af *af;

	guard(raw_spinlock_irqsave)(&tao_tables_lock);
	af = tao_find_af(orig) ?: tao_find_af(NULL);
	if (af && !af->orig) {
		af->ops = *orig;
		af->ops.md5_lookup = tao_md5_lookup;
		af->ops.md5_parse = tao_md5_parse;
		af->ops.ao_parse = tao_ao_parse;
		af->ops.ao_lookup = tao_ao_lookup;
		af->ops.ao_calc_key_sk = tao_calc_key_sk;
		af->ops.calc_ao_hash = tao_calc_ao_hash;
		smp_store_release(&af->orig, orig);
	}
	return af;
}

/* The same for what tao_drop_segment() will look for. */
static int tao_learn_xmit(const struct inet_connection_sock_af_ops *orig)
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

/* Lets the stack call us for @sk. connect() may reset it, so this is done more than once. */
int tao_take_over(struct sock *sk)
{
	struct tcp_sock *tp = tcp_sk(sk);
	struct tao_af *af;

	if (tao_is_our_table(tp->af_specific))
		return 0;
	af = tao_find_af(tp->af_specific) ?: tao_learn_af(tp->af_specific);
	if (!af)
		return -EOPNOTSUPP;
	/* Others read it without the lock, and find what they read it for: see tao_learn_af(). */
	smp_store_release(&tp->af_specific, &af->ops);
	return 0;
}

/* The kernel's table of a socket, whosever it has. One load: the owner may change it meanwhile. */
const struct tcp_sock_af_ops *tao_orig_af(const struct sock *sk)
{
	const struct tcp_sock_af_ops *ops = READ_ONCE(tcp_sk(sk)->af_specific);

	return tao_is_our_table(ops) ? container_of_const(ops, struct tao_af, ops)->orig : ops;
}

void tao_hand_back(struct sock *sk)
{
	WRITE_ONCE(tcp_sk(sk)->af_specific, tao_orig_af(sk));
}

/*
 * The segment that the stack is building cannot be signed: it must not leave. The stack reads
 * queue_xmit after it had the MAC calculated; the one that it finds now drops this segment and puts
 * the table back. The data stays queued, timers try again. @err 0: the socket is not told yet.
 */
void tao_drop_segment(struct sock *sk, int err)
{
	struct inet_connection_sock *icsk = inet_csk(sk);
	struct tao_xmit *xmit = tao_find_xmit(icsk->icsk_af_ops);

	if (!WARN_ON_ONCE(!xmit))
		smp_store_release(&icsk->icsk_af_ops, &xmit->ops);
	/* In repair nobody asked for anything to be sent. */
	if (!err || tcp_sk(sk)->repair)
		return;
	WRITE_ONCE(sk->sk_err, -err);
	sk_error_report(sk);
}

/* Turns on what a first socket needs. May sleep. */
static struct socket *tao_key_socket;
static const struct tcp_sock_af_ops *tao_v4_ops;
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
 * The socket is the machine's, and lives as long as the module. So it is made by a task of the
 * kernel's: one of the first user's own would be charged to his memory cgroup, which could never go,
 * and would be for the rules about his sockets to permit.
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

/*
 * Attaching in two steps. The first is all that can fail, and neither the stack nor a segment meets
 * anything of it; the second makes @conn the state of @sk, or as if the first had not been. Caller
 * holds the socket lock, for both; @sk carries nothing.
 */
int tao_attach_begin(struct sock *sk, struct tao_conn *conn)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	if (rcu_access_pointer(tp->ao_info))
		return -EBUSY;
	if (!tao_is_our_table(tp->af_specific) && !tao_learn_af(tp->af_specific))
		return -EOPNOTSUPP;
	return tao_pin(conn);
}

void tao_attach_end(struct sock *sk, struct tao_conn *conn)
{
	/* Its table is known by now. */
	WARN_ON_ONCE(tao_take_over(sk));
	rhashtable_remove_fast(&tao_parked_table, &conn->parked, tao_parked_params);
	rcu_assign_pointer(tcp_sk(sk)->ao_info, &conn->info);
}

void tao_attach_cancel(struct tao_conn *conn)
{
	tao_unlist(conn);
	module_put(THIS_MODULE);
}

/* Caller holds the socket lock; @sk carries nothing. */
int tao_attach(struct sock *sk, struct tao_conn *conn)
{
	int err = tao_attach_begin(sk, conn);

	if (!err)
		tao_attach_end(sk, conn);
	return err;
}

/*
 * Gives @sk a state of its own instead of *@conn, which its TIME-WAIT socket keeps. Caller holds the
 * socket lock. An error, and *@conn stays: there is no memory, or the module is being drained.
 */
int tao_replace(struct sock *sk, struct tao_conn **conn)
{
	struct tao_conn *old = *conn, *fresh = tao_rust_conn_again(old, sk);
	int err;

	if (!fresh)
		return -ENOMEM;
	err = tao_pin(fresh);
	if (err) {
		tao_conn_put(fresh);
		return err;
	}
	rcu_assign_pointer(tcp_sk(sk)->ao_info, &fresh->info);
	tao_leave(old, false);
	*conn = fresh;
	return 0;
}

/* Caller holds the socket lock, or is the only one who knows @sk. */
int tao_park(struct sock *sk, struct tao_conn *conn)
{
	struct tcp_sock *tp = tcp_sk(sk);

	if (tao_has_native(sk))
		return -EBUSY;
	/* So it was for the last connection. */
	if (tao_parked(sk) == conn)
		return 0;
	/* What it fails for is memory, also where it says that it is being resized, or is full. */
	if (rhashtable_insert_fast(&tao_parked_table, &conn->parked, tao_parked_params))
		return -ENOMEM;
	tao_hand_back(sk);
	conn->info.ao_required = 0;
	if (tao_attached(sk) == conn)
		rcu_assign_pointer(tp->ao_info, NULL);
	if (tao_unlist(conn))
		module_put(THIS_MODULE);
	return 0;
}

/*
 * Softirqs that look for the peer may interrupt this, and would wait for it to end; on PREEMPT_RT
 * they are tasks, which may take its CPU. Neither comes while interrupts are off.
 */
static void tao_set_peer(struct tao_conn *conn, const struct tao_peer *peer)
{
	guard(irqsave)();
	write_seqcount_begin(&conn->seq);
	conn->peer = *peer;
	write_seqcount_end(&conn->seq);
}

/* The peer of a connection that is protected. Any context, nothing locked. */
void tao_peer_of_conn(const struct tao_conn *conn, struct tao_peer *peer)
{
	unsigned int seq;

	do {
		seq = read_seqcount_begin(&conn->seq);
		*peer = conn->peer;
	} while (read_seqcount_retry(&conn->seq, seq));
}

/* Both ISNs, and where the peer of @sk is in its stream: see tao_rcv_place(). Nothing locked. */
u64 tao_numbers_of_conn(const struct sock *sk, const struct tao_conn *conn,
			struct tao_numbers *numbers)
{
	unsigned int seq;
	u64 place;

	do {
		seq = read_seqcount_begin(&conn->seq);
		numbers->lisn = ntohl(READ_ONCE(conn->info.lisn));
		numbers->risn = ntohl(READ_ONCE(conn->info.risn));
		place = tao_rcv_place(sk, conn);
	} while (read_seqcount_retry(&conn->seq, seq));
	return place;
}

/* The connection of @sk is to be protected: @conn belongs to it from now on. */
int tao_protect(struct sock *sk, struct tao_conn *conn)
{
	struct tao_peer peer;
	int err;

	/* A drain has to come to its end: no connection begins meanwhile. */
	if (READ_ONCE(tao_draining))
		return -ENODEV;
	err = tao_learn_xmit(inet_csk(sk)->icsk_af_ops);
	if (err)
		return err;
	/* Whoever finds the state finds whom it is for. Even if we are not asked, nothing unsigned goes. */
	conn->info.ao_required = 1;
	WRITE_ONCE(conn->rcv_shift, 0);
	tao_peer_of_sock(sk, &peer);
	tao_set_peer(conn, &peer);
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
	conn->info.ao_required = 0;
	tao_rust_not_connected(conn);
}

/*
 * A protected connection begins on a socket that had no state attached, but can be found already.
 * What came for it so far was not checked, and waits in the backlog, since the socket is locked.
 * None of it can be an answer: nothing was sent yet. May sleep.
 */
void tao_drop_backlog(struct sock *sk)
{
	struct sk_buff *skb, *next;

	/* Who saw no state holds an RCU read lock until the segment is in the backlog. */
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
 * A protected socket has connected in repair. What the stack does with the answer to a SYN it has
 * not done: leave AO out of the header's length, so that header prediction, which takes no notice of
 * a timestamp beside AO, never matches. The MSS, which was computed with it, is computed again.
 */
void tao_connected_in_repair(struct sock *sk, struct tao_conn *conn)
{
	struct tcp_sock *tp = tcp_sk(sk);

	tp->tcp_header_len -= tcp_ao_len_aligned(&conn->key);
	tp->pred_flags = 0;
	inet_csk(sk)->icsk_pmtu_cookie = 0;
}

/* ---- drain ---- */

/* How many states are looked at with interrupts off. */
#define TAO_LOOK_AT	64

/*
 * A socket, or a TIME-WAIT socket, that has an attached state, with a reference to it. NULL: there
 * is no state (@none), or those looked at are on their way, without a reference to be had. Others
 * are looked at the next time.
 */
static struct sock *tao_any_attached(bool *none)
{
	guard(raw_spinlock_irqsave)(&tao_attached_lock);
	*none = list_empty(&tao_all_attached);
	for (int i = 0; i < TAO_LOOK_AT && !*none; i++) {
		struct tao_conn *conn = list_first_entry(&tao_all_attached, struct tao_conn,
							 attached);

		list_move_tail(&conn->attached, &tao_all_attached);
		if (conn->sk && refcount_inc_not_zero(&conn->sk->sk_refcnt))
			return conn->sk;
		if (conn->tw && refcount_inc_not_zero(&conn->tw->tw_refcnt))
			return (struct sock *)conn->tw;
	}
	return NULL;
}

/* Ends what @sk does, its requests and accepted connections too, and takes its state away. */
static void tao_drain_sock(struct sock *sk)
{
	struct tao_conn *conn;

	tcp_abort(sk, ECONNABORTED);
	if (sk->sk_state == TCP_TIME_WAIT)
		return;
	lock_sock(sk);
	conn = tao_attached(sk);
	/* Its owner may have made a listener of it again; then it is met again, too. */
	if (conn && sk->sk_state == TCP_CLOSE) {
		/*
		 * It asked for protection, and must not get a connection without: it is bound to an
		 * interface that cannot exist. A port that it is bound to is of the interface that it
		 * had, and listen() would look for it under the new one.
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

	scoped_guard(raw_spinlock_irqsave, &tao_attached_lock)
		WRITE_ONCE(tao_draining, true);
	while (1) {
		sk = tao_any_attached(&none);
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
	/* The last one has left the list, and lets go of the module a moment later. */
	rcu_barrier();
	return 0;
}

/* ---- what Rust asks of a socket ---- */

struct tao_net *tao_net_of(const struct sock *sk)
{
	return tao_net_get(sock_net(sk));
}

/*
 * Whether the socket has an MD5 key for the peer: the kernel's own lookup, which is exported only in
 * its tables. It wants a socket that has the peer's address, and looks at nothing else in it.
 */
bool tao_md5_wanted(const struct sock *sk, const struct tao_peer *peer, __u16 family)
{
	const struct tcp_sock_af_ops *ops = family == AF_INET ? tao_v4_ops : tao_orig_af(sk);
	struct sock_common far = {
		.skc_net = sk->__sk_common.skc_net,
		.skc_family = family,
		.skc_bound_dev_if = peer->l3index,
	};

	if (family == AF_INET6)
		memcpy(&far.skc_v6_daddr, peer->addr, sizeof(far.skc_v6_daddr));
	else
		memcpy(&far.skc_daddr, peer->family == AF_INET6 ? peer->addr + 12 : peer->addr,
		       sizeof(far.skc_daddr));
	return ops->md5_lookup(sk, container_of(&far, const struct sock, __sk_common));
}

__u8 tao_sk_state(const struct sock *sk)
{
	return READ_ONCE(sk->sk_state);
}

__u16 tao_sk_family(const struct sock *sk)
{
	return sk->sk_family;
}

bool tao_sk_in_repair(const struct sock *sk)
{
	return tcp_sk(sk)->repair;
}

void tao_sk_lock(struct sock *sk)
{
	lock_sock(sk);
}

void tao_sk_unlock(struct sock *sk)
{
	release_sock(sk);
}

void tao_repair_get(const struct sock *sk, const struct tao_conn *conn,
		    struct tcp_repair_authopt *repair)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	u64 place = tao_rcv_place(sk, conn);

	*repair = (struct tcp_repair_authopt) {
		.src_isn = ntohl(conn->info.lisn),
		.dst_isn = ntohl(conn->info.risn),
		.snd_sne = tao_rust_sne(conn->info.snd_sne, tp->snd_una, tp->snd_nxt),
		.rcv_sne = tao_rust_sne(place >> 32, place, tp->rcv_nxt),
		.snd_seq = tp->snd_nxt,
		.rcv_seq = tp->rcv_nxt,
	};
}

/* Each SNE goes with the sequence number beside it: take it to where the stack is now. */
void tao_repair_set(struct sock *sk, struct tao_conn *conn,
		    const struct tcp_repair_authopt *repair)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	struct tcp_ao_info *info = &conn->info;
	u64 rcv_sne = tao_rust_sne(repair->rcv_sne, repair->rcv_seq, tp->rcv_nxt);

	WRITE_ONCE(info->snd_sne, tao_rust_sne(repair->snd_sne, repair->snd_seq, tp->snd_una));
	guard(irqsave)();
	write_seqcount_begin(&conn->seq);
	WRITE_ONCE(info->lisn, htonl(repair->src_isn));
	WRITE_ONCE(info->risn, htonl(repair->dst_isn));
	WRITE_ONCE(conn->rcv_shift, conn->rcv_shift + (rcv_sne << 32 | tp->rcv_nxt) -
		   tao_rcv_place(sk, conn));
	write_seqcount_end(&conn->seq);
}

/* @sk may be a request socket. */
void tao_peer_of_sock(const struct sock *sk, struct tao_peer *peer)
{
	memset(peer, 0, sizeof(*peer));
	peer->family = sk->sk_family;
	if (sk->sk_family == AF_INET6)
		memcpy(peer->addr, &sk->sk_v6_daddr, sizeof(sk->sk_v6_daddr));
	else
		memcpy(peer->addr, &sk->sk_daddr, sizeof(sk->sk_daddr));
	tao_set_vrf(peer, sock_net(sk),
		    l3mdev_master_ifindex_by_index(sock_net(sk), sk->sk_bound_dev_if));
}

void tao_count(const struct sock *sk, int mib)
{
	NET_INC_STATS(sock_net(sk), mib);
}

int tao_conn_tables_init(void)
{
	get_random_bytes(&tao_nobody, sizeof(tao_nobody));
	/* Made once, under a lock that sleeps on PREEMPT_RT: not by tao_before_conn_request(). */
	secure_tcp_seq_and_ts_off(&init_net, 0, 0, 0, 0);
	return rhashtable_init(&tao_parked_table, &tao_parked_params);
}

static void tao_free_parked(void *ptr, void *arg)
{
	tao_conn_put(ptr);
}

/* The hooks are gone, nothing is attached. */
void tao_conn_tables_exit(void)
{
	rhashtable_free_and_destroy(&tao_parked_table, tao_free_parked, NULL);
	/* A state that is freed may give traffic keys to RCU, for which the last barrier waits. */
	rcu_barrier();
	if (tao_key_socket)
		sock_release(tao_key_socket);
}
