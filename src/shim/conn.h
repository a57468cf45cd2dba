/* SPDX-License-Identifier: GPL-2.0 */
/* A socket's state: where it is found, how long it lives, what is read of it without a lock. */
#ifndef TAO_CONN_H
#define TAO_CONN_H

#include <net/tcp.h>
#include "tao.h"

/*
 * Whoever reads the state of a full socket has the socket locked, or is in a read-side critical
 * section of RCU, of which a softirq is one. In callbacks of hooks a debug kernel finds nothing by
 * this, since tao_ask() has preemption off around them.
 */
static inline bool tao_may_read(const struct sock *sk)
{
	return lockdep_sock_is_held(sk) || rcu_read_lock_any_held();
}

/* What a full socket has at ao_info, whosever it is. */
static inline struct tcp_ao_info *tao_ao_info(const struct sock *sk)
{
	return rcu_dereference_check(tcp_sk(sk)->ao_info, tao_may_read(sk));
}

/* A state of ours has this in tcp_ao_info.__unused, which the kernel leaves zero. */
#define TAO_MARK	0x0a0717ad

/* The state that begins with @info. NULL: @info is of the kernel's own TCP-AO, or there is none. */
static inline struct tao_conn *tao_ours(struct tcp_ao_info *info)
{
	return info && info->__unused == TAO_MARK ? (struct tao_conn *)info : NULL;
}

/* where it is */
struct tao_conn *tao_attached(const struct sock *sk);
struct tao_conn *tao_attached_tw(const struct inet_timewait_sock *tw);
struct tao_conn *tao_parked(const struct sock *sk);
struct tao_conn *tao_find(const struct sock *sk);
bool tao_has_native(const struct sock *sk);

/* how long it lives */
void tao_conn_init(struct tao_conn *conn, struct sock *sk);
void tao_accept_icmp(struct tao_conn *conn, bool accept);
int tao_attach_begin(struct sock *sk, struct tao_conn *conn);
void tao_attach_end(struct sock *sk, struct tao_conn *conn);
void tao_attach_cancel(struct tao_conn *conn);
int tao_attach(struct sock *sk, struct tao_conn *conn);
int tao_replace(struct sock *sk, struct tao_conn **conn);
int tao_park(struct sock *sk, struct tao_conn *conn);
void tao_take_away(struct sock *sk, struct tao_conn *conn);
void tao_forget(const struct sock *sk);
void tao_share(struct tao_conn *conn, struct inet_timewait_sock *tw, __u64 rcv);
void tao_leave(struct tao_conn *conn, bool twsk);
void tao_conn_put(struct tao_conn *conn);

/* what is read without a lock */
void tao_set_side(struct tao_conn *conn, struct tao_side side);
struct tao_side tao_side_of_conn(const struct tao_conn *conn);
__u64 tao_numbers_of_conn(const struct sock *sk, const struct tao_conn *conn,
			  struct tao_numbers *numbers);

int tao_conns_init(void);
void tao_conns_exit(void);

extern struct hlist_node *tao_key_mark;

static inline bool tao_is_our_key(const struct tcp_ao_key *key)
{
	return key->node.pprev == &tao_key_mark;
}

static inline struct tao_conn *tao_conn_of_key(struct tcp_ao_key *key)
{
	return container_of(key, struct tao_conn, key);
}

/* Whether the first sequence number behind a SYN with this ISN has SNE 1. */
static inline u32 tao_isn_wraps(__be32 isn)
{
	return isn == htonl(0xffffffff);
}

/*
 * Where the peer of @sk, a full socket, is in its stream: the SNE, and below it a sequence number,
 * which is rcv_nxt but for a FIN at most. This is read without the socket lock, so that it is one
 * load of one word that the stack counts up: rcv_nxt and the SNE that the stack keeps beside it are
 * two, and a reader between them would take a segment of 4 GiB ago for a new one. Nor does the
 * stack count all wraps: it misses that of an ISN of 2^32-1, and that of the data of a SYN-ACK.
 */
static inline u64 tao_rcv_place(const struct sock *sk, const struct tao_conn *conn)
{
	static_assert(sizeof(tcp_sk(sk)->bytes_received) == sizeof(unsigned long));

	return (u64)ntohl(READ_ONCE(conn->info.risn)) + 1 + READ_ONCE(conn->rcv_shift) +
	       READ_ONCE(tcp_sk(sk)->bytes_received);
}

#endif /* TAO_CONN_H */
