// SPDX-License-Identifier: GPL-2.0
/*
 * A socket's state: where the stack finds it, and how long it lives.
 *
 * An attached state is at tcp_sock.ao_info, or at that of the TIME-WAIT socket. To the stack this
 * says that every segment carries AO, so that listeners, sockets that have not connected yet and
 * protected connections have one, and nobody else. The state pins the module.
 *
 * A state is parked if the connection is not protected. It is found in a table by the address of
 * its socket, and pins nothing.
 *
 * Either goes with its socket, after an RCU grace period, since segments are checked without the
 * socket lock: in timewait.c, tao_destroy_sock() for one that is attached, tao_before_destroy() for
 * one that is parked.
 */
#include <linux/module.h>
#include <linux/rhashtable.h>
#include <linux/seqlock.h>
#include <net/tcp.h>
#include "conn.h"
#include "pin.h"
#include "rust.h"
#include "tables.h"

/* A key that points to this is ours, since nothing else can. */
struct hlist_node *tao_key_mark;

static const struct rhashtable_params tao_parked_params = {
	.head_offset = offsetof(struct tao_conn, parked),
	.key_offset = offsetof(struct tao_conn, sk),
	.key_len = sizeof_field(struct tao_conn, sk),
	.automatic_shrinking = true,
};

static struct rhashtable tao_parked_table;

/*
 * The state that is attached to a full socket; the caller holds the socket lock or an RCU read
 * lock, or is in a softirq.
 */
struct tao_conn *tao_attached(const struct sock *sk)
{
	return tao_ours(tao_ao_info(sk));
}

/* The state that is attached to a TIME-WAIT socket, which nobody locks. */
struct tao_conn *tao_attached_tw(const struct inet_timewait_sock *tw)
{
	return tao_ours(rcu_dereference_check(tcp_twsk((struct sock *)tw)->ao_info,
					      rcu_read_lock_any_held()));
}

static noinline struct tao_conn *tao_look_up_parked(const struct sock *sk)
{
	return rhashtable_lookup_fast(&tao_parked_table, &sk, tao_parked_params);
}

/* The state that is parked for a full socket; the caller is as that of tao_attached(). */
struct tao_conn *tao_parked(const struct sock *sk)
{
	RCU_LOCKDEP_WARN(!tao_may_read(sk), "a parked state is looked for without a lock");
	return atomic_read(&tao_parked_table.nelems) ? tao_look_up_parked(sk) : NULL;
}

/*
 * The state of a socket, wherever it is; the caller is as that of tao_attached(). A parked state
 * counts for nothing beside state of the kernel's TCP-AO, which a thread may have added while
 * another one asked for ours: the socket is the kernel's then, and whoever took it for one without
 * protection would accept what has to be verified.
 */
struct tao_conn *tao_find(const struct sock *sk)
{
	struct tcp_ao_info *info = tao_ao_info(sk);

	if (!info)
		return tao_parked(sk);
	return tao_ours(info);
}

/* Whether the socket has state of the kernel's own TCP-AO; the caller is as above. */
bool tao_has_native(const struct sock *sk)
{
	struct tcp_ao_info *info = tao_ao_info(sk);

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

/* Makes a state for @sk of @conn, which is zeroed. */
void tao_conn_init(struct tao_conn *conn, struct sock *sk)
{
	INIT_LIST_HEAD(&conn->pin);
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
 * Says what tcp_ao_ignore_icmp() looks at. The field shares its word with the mark and is stored as
 * the stack itself does it, under the socket lock: the bits beside it do not change, so that
 * whoever reads them without the lock finds what was there.
 */
void tao_accept_icmp(struct tao_conn *conn, bool accept)
{
	sock_owned_by_me(conn->sk);
	conn->info.accept_icmps = accept;
}

/* Nobody has a reference any more, and all who read the state without one have done so. */
static void tao_conn_free_rcu(struct rcu_head *head)
{
	struct tao_conn *conn = container_of(head, struct tao_conn, info.rcu);
	bool pinned = tao_unlist(conn);

	tao_rust_conn_free(conn);
	if (pinned)
		module_put(THIS_MODULE);
}

/* One reference less. Without any the state ends a grace period later. */
void tao_conn_put(struct tao_conn *conn)
{
	if (refcount_dec_and_test(&conn->info.refcnt))
		call_rcu(&conn->info.rcu, tao_conn_free_rcu);
}

/*
 * The TIME-WAIT socket of an attached socket gets the state, too. @rcv is where the peer is in its
 * stream, which a TIME-WAIT socket takes no further than a FIN.
 */
void tao_share(struct tao_conn *conn, struct inet_timewait_sock *tw, __u64 rcv)
{
	refcount_inc(&conn->info.refcnt);
	conn->tw_rcv = rcv;
	tao_set_tw(conn, tw);
	rcu_assign_pointer(tcp_twsk((struct sock *)tw)->ao_info, &conn->info);
}

/* The socket that has the state goes, or its TIME-WAIT socket does (@twsk). */
void tao_leave(struct tao_conn *conn, bool twsk)
{
	if (twsk)
		tao_set_tw(conn, NULL);
	else
		tao_set_sk(conn, NULL);
	tao_conn_put(conn);
}

/* The socket goes, and with it what is parked for it. */
void tao_forget(const struct sock *sk)
{
	struct tao_conn *conn;

	if (!atomic_read(&tao_parked_table.nelems))
		return;
	guard(rcu)();
	conn = tao_parked(sk);
	if (conn && !rhashtable_remove_fast(&tao_parked_table, &conn->parked, tao_parked_params))
		tao_conn_put(conn);
}

/*
 * A state is attached in two steps. The first does all that can fail, and neither the stack nor a
 * segment meets anything of it. As the second, tao_attach_end() makes @conn the state of @sk, or
 * tao_attach_cancel() makes it as if the first had not been. The caller holds the socket lock for
 * both, and @sk has nothing at ao_info.
 */
int tao_attach_begin(struct sock *sk, struct tao_conn *conn)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	int err;

	sock_owned_by_me(sk);
	if (rcu_access_pointer(tp->ao_info))
		return -EBUSY;
	err = tao_learn_af(tp->af_specific);
	if (err)
		return err;
	return tao_pin(conn);
}

void tao_attach_end(struct sock *sk, struct tao_conn *conn)
{
	sock_owned_by_me(sk);
	/* The first step has learnt the table of the socket, so that this does not fail. */
	WARN_ON_ONCE(tao_take_over(sk));
	rhashtable_remove_fast(&tao_parked_table, &conn->parked, tao_parked_params);
	rcu_assign_pointer(tcp_sk(sk)->ao_info, &conn->info);
}

void tao_attach_cancel(struct tao_conn *conn)
{
	tao_unpin(conn);
}

/* Both steps at once. */
int tao_attach(struct sock *sk, struct tao_conn *conn)
{
	int err = tao_attach_begin(sk, conn);

	if (!err)
		tao_attach_end(sk, conn);
	return err;
}

/*
 * Gives @sk a state of its own instead of *@conn, which its TIME-WAIT socket keeps. The caller
 * holds the socket lock. After an error *@conn stays: there is no memory, or the module is being
 * drained.
 */
int tao_replace(struct sock *sk, struct tao_conn **conn)
{
	struct tao_conn *old = *conn, *fresh = tao_rust_conn_again(old, sk);
	int err;

	sock_owned_by_me(sk);
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

/*
 * The connection of @sk is not protected. The caller holds the socket lock; that of a child is held
 * from its beginning.
 */
int tao_park(struct sock *sk, struct tao_conn *conn)
{
	struct tcp_sock *tp = tcp_sk(sk);

	sock_owned_by_me(sk);
	if (tao_has_native(sk))
		return -EBUSY;
	/* The last connection of the socket was not protected either. */
	if (tao_parked(sk) == conn)
		return 0;
	/* The table lacks memory, also where it says that it is being resized, or is full. */
	if (rhashtable_insert_fast(&tao_parked_table, &conn->parked, tao_parked_params))
		return -ENOMEM;
	tao_hand_back(sk);
	conn->info.ao_required = 0;
	if (tao_attached(sk) == conn)
		rcu_assign_pointer(tp->ao_info, NULL);
	tao_unpin(conn);
	return 0;
}

/*
 * @sk never asked for a state, and has no connection that needs one: it has none any more. @conn may
 * not have been attached yet. The caller holds the socket lock.
 */
void tao_take_away(struct sock *sk, struct tao_conn *conn)
{
	sock_owned_by_me(sk);
	if (tao_attached(sk) == conn) {
		tao_hand_back(sk);
		conn->info.ao_required = 0;
		rcu_assign_pointer(tcp_sk(sk)->ao_info, NULL);
	}
	tao_leave(conn, false);
}

/* What keys look at of the connection of @conn. The caller holds the socket lock. */
void tao_set_side(struct tao_conn *conn, struct tao_side side)
{
	sock_owned_by_me(conn->sk);
	WRITE_ONCE(conn->side.vrf, side.vrf);
	WRITE_ONCE(conn->side.family, side.family);
}

/* The same of a connection that is protected. Nothing has to be locked. */
struct tao_side tao_side_of_conn(const struct tao_conn *conn)
{
	return (struct tao_side) {
		.vrf = READ_ONCE(conn->side.vrf),
		.family = READ_ONCE(conn->side.family),
	};
}

/*
 * Reads both ISNs, and where the peer of @sk is in its stream: see tao_rcv_place(). Nothing has to
 * be locked.
 */
__u64 tao_numbers_of_conn(const struct sock *sk, const struct tao_conn *conn,
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

int tao_conns_init(void)
{
	get_random_bytes(&tao_nobody, sizeof(tao_nobody));
	return rhashtable_init(&tao_parked_table, &tao_parked_params);
}

static void tao_free_parked(void *ptr, void *arg)
{
	tao_conn_put(ptr);
}

/* The hooks are gone, and nothing is attached. */
void tao_conns_exit(void)
{
	rhashtable_free_and_destroy(&tao_parked_table, tao_free_parked, NULL);
	/* A state that is freed may give traffic keys to RCU, for which the last barrier waits. */
	rcu_barrier();
}
