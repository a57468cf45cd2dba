// SPDX-License-Identifier: GPL-2.0
/* What Rust asks of a socket. */
#include <net/tcp.h>
#include "conn.h"
#include "net.h"
#include "query.h"
#include "rust.h"
#include "tables.h"
#include "wake.h"

struct tao_net *tao_net_of(const struct sock *sk)
{
	return tao_net_get(sock_net(sk));
}

/*
 * Whether the socket has an MD5 key for the sender of a segment. The kernel's own lookup is exported
 * only in its tables. It wants a socket that has the peer's address, and looks at what is filled in
 * here.
 */
bool tao_md5_wanted(const struct sock *sk, const struct tao_segment *seg, int l3index)
{
	const struct tcp_sock_af_ops *ops = seg->family == AF_INET ? tao_v4_ops : tao_orig_af(sk);
	struct sock_common far = {
		.skc_net = sk->__sk_common.skc_net,
		.skc_family = seg->family,
		.skc_bound_dev_if = l3index,
	};

	if (seg->family == AF_INET6)
		memcpy(&far.skc_v6_daddr, seg->saddr, sizeof(far.skc_v6_daddr));
	else
		memcpy(&far.skc_daddr, seg->saddr, sizeof(far.skc_daddr));
	return ops->md5_lookup(sk, container_of(&far, const struct sock, __sk_common));
}

/*
 * A state that a policy has given @sk stays when the connection ends, of which the stack does not
 * tell; it is taken away when that would show. May sleep.
 */
void tao_forget_leftover(struct sock *sk)
{
	struct tao_conn *conn;

	if (likely(!rcu_access_pointer(tcp_sk(sk)->ao_info)) ||
	    READ_ONCE(sk->sk_state) != TCP_CLOSE)
		return;
	lock_sock(sk);
	conn = tao_attached(sk);
	if (conn && sk->sk_state == TCP_CLOSE && !tao_rust_asked(conn))
		tao_take_away(sk, conn);
	release_sock(sk);
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

	sock_owned_by_me(sk);
	*repair = (struct tcp_repair_authopt) {
		.src_isn = ntohl(conn->info.lisn),
		.dst_isn = ntohl(conn->info.risn),
		.snd_sne = tao_rust_sne(conn->info.snd_sne, tp->snd_una, tp->snd_nxt),
		.rcv_sne = tao_rust_sne(place >> 32, place, tp->rcv_nxt),
		.snd_seq = tp->snd_nxt,
		.rcv_seq = tp->rcv_nxt,
	};
}

/*
 * Each SNE belongs to the sequence number beside it, and is taken from there to where the stack is.
 */
void tao_repair_set(struct sock *sk, struct tao_conn *conn,
		    const struct tcp_repair_authopt *repair)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	struct tcp_ao_info *info = &conn->info;
	u64 rcv_sne = tao_rust_sne(repair->rcv_sne, repair->rcv_seq, tp->rcv_nxt);

	sock_owned_by_me(sk);
	WRITE_ONCE(info->snd_sne, tao_rust_sne(repair->snd_sne, repair->snd_seq, tp->snd_una));
	guard(irqsave)();
	write_seqcount_begin(&conn->seq);
	WRITE_ONCE(info->lisn, htonl(repair->src_isn));
	WRITE_ONCE(info->risn, htonl(repair->dst_isn));
	WRITE_ONCE(conn->rcv_shift, conn->rcv_shift + (rcv_sne << 32 | tp->rcv_nxt) -
		   tao_rcv_place(sk, conn));
	write_seqcount_end(&conn->seq);
}

void tao_count(const struct sock *sk, int mib)
{
	NET_INC_STATS(sock_net(sk), mib);
}
