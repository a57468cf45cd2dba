/* SPDX-License-Identifier: GPL-2.0 */
#ifndef TAO_CONN_H
#define TAO_CONN_H

#include <net/tcp.h>
#include "tao.h"

#define TAO_MAC_LEN	12

extern struct hlist_node *tao_key_mark;

struct tao_conn *tao_ours(struct tcp_ao_info *info);
struct tao_conn *tao_attached(const struct sock *sk);
struct tao_conn *tao_parked(const struct sock *sk);
void tao_share(struct tao_conn *conn, struct tcp_timewait_sock *tcptw, u64 rcv);
void tao_leave(struct tao_conn *conn, bool twsk);
void tao_conn_put(struct tao_conn *conn);
void tao_peer_of_conn(const struct tao_conn *conn, struct tao_peer *peer);
int tao_take_over(struct sock *sk);
u64 tao_numbers_of_conn(const struct sock *sk, const struct tao_conn *conn,
			struct tao_numbers *numbers);
const struct tcp_sock_af_ops *tao_orig_af(const struct sock *sk);
int tao_attach(struct sock *sk, struct tao_conn *conn);
void tao_hand_back(struct sock *sk);
void tao_drop_segment(struct sock *sk, int err);
int tao_protect(struct sock *sk, struct tao_conn *conn);
void tao_not_connected(struct tao_conn *conn);
void tao_drop_backlog(struct sock *sk);
void tao_connected_in_repair(struct sock *sk, struct tao_conn *conn);
int tao_replace(struct sock *sk, struct tao_conn **conn);

/* net.c */
struct tao_net *tao_net_get(struct net *net);
void tao_set_vrf(struct tao_peer *peer, struct net *net, __u32 l3index);

/* seam.c: what goes into tcp_sock_af_ops */
struct tcp_md5sig_key *tao_md5_lookup(const struct sock *sk, const struct sock *addr_sk);
int tao_md5_parse(struct sock *sk, int optname, sockptr_t optval, int optlen);
int tao_ao_parse(struct sock *sk, int optname, sockptr_t optval, int optlen);
struct tcp_ao_key *tao_ao_lookup(const struct sock *sk, struct sock *addr_sk, int sndid, int rcvid);
void tao_calc_key_sk(struct tcp_ao_key *key, u8 *tkey, const struct sock *sk, __be32 sisn,
		     __be32 disn, bool send);
int tao_calc_ao_hash(char *location, struct tcp_ao_key *key, const struct sock *sk,
		     const struct sk_buff *skb, const u8 *tkey, int hash_offset, u32 sne);

static inline bool tao_is_our_key(const struct tcp_ao_key *key)
{
	return key->node.pprev == &tao_key_mark;
}

static inline struct tao_conn *tao_conn_of_key(struct tcp_ao_key *key)
{
	return container_of(key, struct tao_conn, key);
}

/* The first sequence number behind a SYN with this ISN has SNE 1. */
static inline u32 tao_isn_wraps(__be32 isn)
{
	return isn == htonl(0xffffffff);
}

/*
 * Where the peer of @sk, a full socket, is in its stream: the SNE, and below it a sequence number,
 * which is rcv_nxt but for a FIN at most. This is read without the socket lock, so it is one load of
 * one word that the stack counts up: rcv_nxt and the SNE that the stack keeps beside it are two,
 * and a reader between them would take a segment of 4 GiB ago for a new one. Nor does the stack
 * count all wraps: it misses that of an ISN of 2^32-1, and that of the data of a SYN-ACK.
 */
static inline u64 tao_rcv_place(const struct sock *sk, const struct tao_conn *conn)
{
	static_assert(sizeof(tcp_sk(sk)->bytes_received) == sizeof(unsigned long));

	return (u64)ntohl(READ_ONCE(conn->info.risn)) + 1 + READ_ONCE(conn->rcv_shift) +
	       READ_ONCE(tcp_sk(sk)->bytes_received);
}

#endif /* TAO_CONN_H */
