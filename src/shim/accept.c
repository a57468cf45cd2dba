// SPDX-License-Identifier: GPL-2.0
/* How a connection begins at a listener: SYN, SYN-ACK, and the socket that is made of them. */
#include <net/l3mdev.h>
#include <net/tcp.h>
#include "accept.h"
#include "args.h"
#include "conn.h"
#include "open.h"
#include "peer.h"
#include "rust.h"
#include "segment.h"
#include "tables.h"

/* Whether the stack makes no request of just any SYN: three places of tcp_conn_request(). */
static bool tao_is_crowded(const struct sock *sk)
{
	const struct netns_ipv4 *ipv4 = &sock_net(sk)->ipv4;
	int most = READ_ONCE(ipv4->sysctl_max_syn_backlog);

	switch (READ_ONCE(ipv4->sysctl_tcp_syncookies)) {
	case 0:
		/* The last quarter is for those who have been here before. */
		return inet_csk_reqsk_queue_is_full(sk) ||
		       most - inet_csk_reqsk_queue_len(sk) < most >> 2;
	case 2:
		return true;
	default:
		return inet_csk_reqsk_queue_is_full(sk);
	}
}

/*
 * A SYN that the stack would answer by a cookie, or drop, since there are too many requests. One
 * whose MAC is right is proof enough of a peer, and gets a request with an ISN that is new: to the
 * stack it is as if a TIME-WAIT socket had let it begin anew. What opens by a cookie has the ISNs
 * that its ACK shows, so that all of a recorded connection could be played again.
 */
bool tao_before_conn_request(struct ftrace_regs *fregs)
{
	const struct request_sock_ops *rsk_ops = TAO_ARG(fregs, 0, const struct request_sock_ops *);
	const struct tcp_request_sock_ops *af_ops =
		TAO_ARG(fregs, 1, const struct tcp_request_sock_ops *);
	const struct sock *sk = TAO_ARG(fregs, 2, const struct sock *);
	struct sk_buff *skb = TAO_ARG(fregs, 3, struct sk_buff *);
	const struct tao_conn *conn = tao_attached(sk);
	const struct tcphdr *th = tcp_hdr(skb);
	struct net *net = sock_net(sk);
	struct tao_peer peer;

	if (!conn || TCP_SKB_CB(skb)->tcp_tw_isn || !tao_is_crowded(sk))
		return false;
	tao_peer_of_skb(skb, rsk_ops->family, sk,
			l3mdev_master_ifindex_by_index(net, inet_request_bound_dev_if(sk, skb)),
			&peer);
	switch (tao_rust_crowded(conn, &peer, tao_rust_find_ao((const u8 *)th, th->doff * 4),
				 inet_csk_reqsk_queue_len(sk),
				 READ_ONCE(sk->sk_max_ack_backlog))) {
	case TAO_CROWDED_STACK:
		return false;
	case TAO_CROWDED_ADMIT:
		/* 0 would mean that there is none. */
		TCP_SKB_CB(skb)->tcp_tw_isn = af_ops->init_seq_and_ts_off(net, skb).seq ?: 1;
		return false;
	default:
		return true;
	}
}

int tao_drop_syn(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops,
		 struct sock *sk, struct sk_buff *skb)
{
	tcp_listendrop(sk);
	return 0;
}

/*
 * A signed SYN that was accepted without a key gets an unsigned SYN-ACK. One that has to be signed
 * and cannot be is not sent: for want of a key, or because SO_REUSEPORT has handed the request to a
 * listener without state.
 */
bool tao_before_make_synack(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	struct request_sock *req = TAO_ARG(fregs, 2, struct request_sock *);
	/* The upper half of the register of an enum is anything. */
	bool cookie = TAO_ARG(fregs, 4, int) == TCP_SYNACK_COOKIE;
	const struct sk_buff *syn = TAO_ARG(fregs, 5, const struct sk_buff *);
	struct tcp_ao_info *info = rcu_dereference_raw(tcp_sk(sk)->ao_info);
	struct tao_conn *conn = tao_ours(info);
	struct tao_peer peer;

	if (!tcp_rsk(req)->used_tcp_ao)
		return false;
	if (!conn)
		return !info;
	tao_peer_of_sock(req_to_sk(req), &peer);
	if (syn)
		tcp_rsk(req)->used_tcp_ao = tao_rust_keyed(conn, &peer);
	if (!tcp_rsk(req)->used_tcp_ao)
		return false;
	/* The peer's first key came after tao_before_conn_request() had asked for one. */
	if (cookie)
		return true;
	/* AF_SMC is refused here, and to the socket by tao_protect(). */
	inet_rsk(req)->smc_ok = 0;
	return !tao_rust_may_send(conn, &peer);
}

/* To the caller it is as if there were no memory. */
struct sk_buff *tao_make_no_synack(const struct sock *sk, struct dst_entry *dst,
				   struct request_sock *req, struct tcp_fastopen_cookie *foc,
				   enum tcp_synack_type synack_type, struct sk_buff *syn_skb)
{
	dst_release(dst);
	return NULL;
}

bool tao_ours_synack_hash(struct ftrace_regs *fregs)
{
	return tao_is_our_key(TAO_ARG(fregs, 1, const struct tcp_ao_key *));
}

int tao_synack_hash(char *hash, struct tcp_ao_key *key, struct request_sock *req,
		    const struct sk_buff *skb, int hash_offset, u32 sne)
{
	const struct inet_request_sock *ireq = inet_rsk(req);
	struct tao_reply reply = { .preferred = tcp_rsk(req)->ao_keyid };
	struct tcphdr *th = (struct tcphdr *)(hash - hash_offset);
	struct tao_segment seg = {
		.skb = skb,
		.th = (u8 *)th,
		.header_len = th->doff * 4,
		.len = skb->len,
		.ao = hash_offset - sizeof(struct tcp_ao_hdr),
		/* Not ireq_family, which is AF_INET6 for an IPv4 peer of an IPv6 listener. */
		.family = req->rsk_ops->family,
	};

	if (seg.family == AF_INET6) {
		seg.saddr = (const u8 *)&ireq->ir_v6_loc_addr;
		seg.daddr = (const u8 *)&ireq->ir_v6_rmt_addr;
	} else {
		seg.saddr = (const u8 *)&ireq->ir_loc_addr;
		seg.daddr = (const u8 *)&ireq->ir_rmt_addr;
	}
	tao_peer_of_sock(req_to_sk(req), &reply.peer);
	tao_numbers_of_req(req, &reply.numbers);
	/* Nobody looks at the result: without a key it goes with a MAC that nobody accepts. */
	memset(hash, 0, TAO_MAC_LEN);
	return tao_rust_reply(tao_conn_of_key(key), &seg, &reply);
}

bool tao_ours_lookup_rsk(struct ftrace_regs *fregs)
{
	return tao_attached(TAO_ARG(fregs, 0, const struct sock *));
}

/*
 * A key here would make header prediction match, which takes no notice of a timestamp beside AO.
 */
struct tcp_ao_key *tao_lookup_rsk(const struct sock *sk, struct request_sock *req, int sndid,
				  int rcvid)
{
	return NULL;
}

/* A signed request may have been handed to a listener without state, by SO_REUSEPORT. */
bool tao_ours_copy_all(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	const struct request_sock *req = TAO_ARG(fregs, 2, const struct request_sock *);

	struct tcp_ao_info *info = rcu_dereference_raw(tcp_sk(sk)->ao_info);

	return tao_ours(info) || (tcp_rsk(req)->used_tcp_ao && !info);
}

/* A child comes to be: softirq, only we know it. */
int tao_copy_all_matching(const struct sock *sk, struct sock *newsk, struct request_sock *req,
			  struct sk_buff *skb, int family)
{
	struct tcp_request_sock *treq = tcp_rsk(req);
	const struct tcphdr *th = tcp_hdr(skb);
	struct tao_conn *listener = tao_attached(sk);
	enum tao_child child = TAO_CHILD_REFUSED;
	enum tao_origin origin;
	struct tao_conn *conn;
	struct tao_peer peer;
	int err = -EKEYREJECTED;
	u8 ids[2];
	u32 ao;

	ao = tao_rust_find_ao((const u8 *)th, th->doff * 4);
	if (listener) {
		/* What belongs to no request of the listener's is made of its own segment. */
		origin = th->syn ? TAO_OF_FAST_OPEN :
			 req->rsk_listener ? TAO_OF_REQUEST : TAO_OF_COOKIE;
		tao_peer_of_sock(newsk, &peer);
		child = tao_rust_child(listener, &peer,
				       origin == TAO_OF_COOKIE ? ao : treq->used_tcp_ao, origin);
	}
	if (child == TAO_CHILD_REFUSED)
		goto hand_back;
	treq->used_tcp_ao = child == TAO_CHILD_PROTECTED;
	/* The ACK may ask for another key than the SYN did. */
	if (ao) {
		const struct tcp_ao_hdr *aoh = (const void *)th + ao;

		treq->ao_keyid = aoh->rnext_keyid;
		treq->ao_rcv_next = aoh->keyid;
	}

	err = -ENOMEM;
	ids[0] = treq->ao_rcv_next;
	ids[1] = treq->ao_keyid;
	conn = tao_rust_conn_accept(listener, newsk, treq->used_tcp_ao ? ids : NULL);
	if (!conn)
		goto hand_back;
	if (treq->used_tcp_ao) {
		conn->info.lisn = htonl(treq->snt_isn);
		conn->info.risn = htonl(treq->rcv_isn);
		/* snd_una starts behind the SYN */
		conn->info.snd_sne = tao_isn_wraps(conn->info.lisn);
		if (!tao_protect(newsk, conn))
			return 0;
	} else if (!tao_park(newsk, conn)) {
		tao_hand_back(newsk);
		return 0;
	}
	tao_conn_put(conn);
hand_back:
	tao_hand_back(newsk);
	return err;
}
