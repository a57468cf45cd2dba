// SPDX-License-Identifier: GPL-2.0
/* How a connection begins at a listener: SYN, SYN-ACK, and the socket that is made of them. */
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/mptcp.h>
#include <net/tcp.h>
#include "accept.h"
#include "conn.h"
#include "ends.h"
#include "hook.h"
#include "net.h"
#include "open.h"
#include "rust.h"
#include "segment.h"
#include "standin.h"
#include "tables.h"

/*
 * Whether the stack makes no request of just any SYN. What it asks is in tcp_conn_request(), three
 * times, and is said again here: whoever moves to another kernel has to compare.
 */
static bool tao_is_crowded(const struct sock *sk)
{
	const struct netns_ipv4 *ipv4 = &sock_net(sk)->ipv4;
	int most = READ_ONCE(ipv4->sysctl_max_syn_backlog);

	switch (READ_ONCE(ipv4->sysctl_tcp_syncookies)) {
	case 0:
		/*
		 * First: the queue is full, and there are no cookies, so that the SYN is dropped.
		 * Second, before an ISN is taken: the last quarter of the queue is for peers of
		 * which the stack has metrics. Whether it has is not asked here: a key says more.
		 */
		return inet_csk_reqsk_queue_is_full(sk) ||
		       most - inet_csk_reqsk_queue_len(sk) < most >> 2;
	case 2:
		/* Third, in one condition with the first: every SYN is answered by a cookie. */
		return true;
	default:
		/* The first again: the answer to a SYN is a cookie while the queue is full. */
		return inet_csk_reqsk_queue_is_full(sk);
	}
}

/*
 * Every SYN that passed what a segment has to pass. One that has to be signed and is not goes no
 * further. One that is, and that the stack would answer by a cookie or drop, since there are too many
 * requests, gets a request with an ISN that is new: to the stack it is as if a TIME-WAIT socket had
 * let it begin anew. See syn() in src/proto/verdict.rs.
 */
static noinline bool tao_refuses_syn(const struct request_sock_ops *rsk_ops,
				     const struct tcp_request_sock_ops *af_ops,
				     const struct sock *sk, struct tcp_ao_info *info,
				     struct sk_buff *skb)
{
	const struct tao_conn *conn = tao_ours(info);
	const struct tcphdr *th = tcp_hdr(skb);
	struct net *net = sock_net(sk);
	u32 header_len = th->doff * 4;
	struct tao_ends ends;
	bool is_crowded;
	int l3index;

	if (!conn)
		conn = rsk_ops->family == AF_INET6 ?
		       tao_stand_in_for(sk, &ipv6_hdr(skb)->saddr, AF_INET6) :
		       tao_stand_in_for(sk, &ip_hdr(skb)->saddr, AF_INET);
	if (!conn)
		return false;
	is_crowded = !TCP_SKB_CB(skb)->tcp_tw_isn && tao_is_crowded(sk);
	l3index = l3mdev_master_ifindex_by_index(net, inet_request_bound_dev_if(sk, skb));
	tao_ends_of_skb(skb, rsk_ops->family, tao_side_at(sk, l3index), &ends);
	/* The kernel's own TCP-AO has verified what is signed. */
	if (info && !tao_ours(info))
		return tao_rust_refuses_native(conn, sk, &ends,
					       tao_rust_carries_ao((const u8 *)th, header_len));
	switch (tao_rust_syn(conn, sk, &ends, tao_rust_find_ao((const u8 *)th, header_len),
			     sk_is_mptcp(sk) && tao_rust_joins_mptcp((const u8 *)th, header_len),
			     is_crowded, inet_csk_reqsk_queue_len(sk),
			     READ_ONCE(sk->sk_max_ack_backlog))) {
	case TAO_SYN_STACK:
		return false;
	case TAO_SYN_ADMIT:
		/* 0 would mean that there is none. */
		TCP_SKB_CB(skb)->tcp_tw_isn = af_ops->init_seq_and_ts_off(net, skb).seq ?: 1;
		return false;
	default:
		return true;
	}
}

bool tao_before_conn_request(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 2, const struct sock *);
	struct tcp_ao_info *info = tao_ao_info(sk);

	if (!tao_ours(info) && !tao_stand_in(sk))
		return false;
	return tao_refuses_syn(TAO_ARG(fregs, 0, const struct request_sock_ops *),
			       TAO_ARG(fregs, 1, const struct tcp_request_sock_ops *), sk, info,
			       TAO_ARG(fregs, 3, struct sk_buff *));
}

int tao_drop_syn(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops,
		 struct sock *sk, struct sk_buff *skb)
{
	tcp_listendrop(sk);
	return 0;
}

/*
 * Whether the SYN-ACK for a signed SYN may go, signed or not. It may not where SO_REUSEPORT has
 * handed the request to a listener without state.
 */
static noinline bool tao_may_answer(const struct sock *sk, struct request_sock *req, bool cookie,
				    bool first)
{
	struct tcp_ao_info *info = tao_ao_info(sk);
	const struct tao_conn *conn = tao_of_listener(sk, info);
	enum tao_answer answer;
	struct tao_ends ends;

	if (!conn)
		return info;
	tao_ends_of_sock(req_to_sk(req), &ends);
	answer = tao_rust_answer(conn, &ends, cookie, first);
	if (answer == TAO_ANSWER_UNSIGNED) {
		tcp_rsk(req)->used_tcp_ao = 0;
		return true;
	}
	/*
	 * AF_SMC is refused here, and to the socket by tao_protect(); and so is MPTCP, for which there
	 * would be no room, and whose other subflows need not be signed: the child is of TCP.
	 */
	inet_rsk(req)->smc_ok = 0;
#if IS_ENABLED(CONFIG_MPTCP)
	tcp_rsk(req)->is_mptcp = 0;
#endif
	return answer == TAO_ANSWER_SIGNED;
}

/* Every SYN-ACK: see answer() in src/proto/verdict.rs for those that the stack would sign. */
bool tao_before_make_synack(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	struct request_sock *req = TAO_ARG(fregs, 2, struct request_sock *);
	/* The upper half of the register of an enum is anything. */
	bool cookie = TAO_ARG(fregs, 4, int) == TCP_SYNACK_COOKIE;
	bool first = TAO_ARG(fregs, 5, const struct sk_buff *);

	return tcp_rsk(req)->used_tcp_ao && !tao_may_answer(sk, req, cookie, first);
}

/* The caller takes it for a lack of memory. */
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
	struct tao_segment seg = tao_segment_to_sign(hash, hash_offset, skb, skb->len);

	seg.side = tao_side_of_sock(req_to_sk(req));
	/* Not ireq_family, which is AF_INET6 for an IPv4 peer of an IPv6 listener. */
	seg.family = req->rsk_ops->family;
	if (seg.family == AF_INET6) {
		seg.saddr = (const u8 *)&ireq->ir_v6_loc_addr;
		seg.daddr = (const u8 *)&ireq->ir_v6_rmt_addr;
	} else {
		seg.saddr = (const u8 *)&ireq->ir_loc_addr;
		seg.daddr = (const u8 *)&ireq->ir_rmt_addr;
	}
	tao_numbers_of_req(req, &reply.numbers);
	/* The stack ignores the result: without a key the SYN-ACK goes with a MAC of zeros. */
	memset(hash, 0, TAO_MAC_LEN);
	return tao_rust_reply(tao_conn_of_key(key), &seg, &reply);
}

bool tao_ours_lookup_rsk(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);

	return tao_of_listener(sk, tao_ao_info(sk));
}

/* A key here would make header prediction match, which takes no notice of a timestamp beside AO. */
struct tcp_ao_key *tao_lookup_rsk(const struct sock *sk, struct request_sock *req, int sndid,
				  int rcvid)
{
	return NULL;
}

static noinline bool tao_refuses_native_child(const struct sock *newsk,
					      const struct request_sock *req)
{
	const struct tao_conn *stand_in = tao_stand_in_for_sock(newsk);
	struct tao_ends ends;

	if (!stand_in)
		return false;
	tao_ends_of_sock(newsk, &ends);
	return tao_rust_refuses_native(stand_in, newsk, &ends, tcp_rsk(req)->used_tcp_ao);
}

/*
 * SO_REUSEPORT may have handed a signed request to a listener without state. One with state of the
 * kernel's own TCP-AO makes its children itself, unless a policy has something against that.
 */
bool tao_ours_copy_all(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	const struct request_sock *req = TAO_ARG(fregs, 2, const struct request_sock *);
	struct tcp_ao_info *info = tao_ao_info(sk);
	const struct sock *newsk = TAO_ARG(fregs, 1, const struct sock *);

	if (!info)
		return tcp_rsk(req)->used_tcp_ao ||
		       (tao_stand_in(sk) && tao_stand_in_for_sock(newsk));
	return tao_ours(info) || (tao_stand_in(sk) && tao_refuses_native_child(newsk, req));
}

/* Whether @newsk, which the stack makes of @th, is to be, and whether it is protected. */
static enum tao_child tao_judge_child(const struct tao_conn *listener, const struct sock *newsk,
				      const struct request_sock *req, const struct tcphdr *th,
				      bool is_signed)
{
	enum tao_origin origin = TAO_OF_COOKIE;

	/* A request that is no request of the listener's is made of the segment itself. */
	if (th->syn)
		origin = TAO_OF_FAST_OPEN;
	else if (req->rsk_listener)
		origin = TAO_OF_REQUEST;
	if (origin != TAO_OF_COOKIE)
		is_signed = tcp_rsk(req)->used_tcp_ao;
	return tao_rust_child(listener, newsk, is_signed, origin);
}

/* Gives @newsk the state that it has from now on. */
static int tao_make_child(const struct tao_conn *listener, struct sock *newsk,
			  const struct tcp_request_sock *treq)
{
	const u8 ids[] = { treq->ao_rcv_next, treq->ao_keyid };
	struct tao_conn *conn;
	int err;

	conn = tao_rust_conn_accept(listener, newsk, treq->used_tcp_ao ? ids : NULL);
	if (!conn)
		return -ENOMEM;
	if (treq->used_tcp_ao) {
		conn->info.lisn = htonl(treq->snt_isn);
		conn->info.risn = htonl(treq->rcv_isn);
		/* snd_una starts behind the SYN. */
		conn->info.snd_sne = tao_isn_wraps(conn->info.lisn);
		err = tao_protect(newsk, conn);
	} else {
		err = tao_park(newsk, conn);
	}
	if (err)
		tao_conn_put(conn);
	return err;
}

/*
 * A child comes to be. What it becomes is decided by child() in src/proto/verdict.rs, where the
 * table is. "Signed" is used_tcp_ao, which the stack sets by the SYN; with a cookie there was no
 * request to remember the SYN, so that it is whether the ACK carries AO. What becomes of
 * used_tcp_ao, by which the stack goes on:
 *
 *	made of		protected	not protected	refused
 *	request		1, as it was	0, as it was	as it was: the request stays
 *	cookie		never		0, as it was	as it was, and gone with the request
 *	Fast Open	never		0: the SYN-ACK	as it was: the stack goes on with a
 *					is unsigned	request
 *
 * A listener without state refuses if nobody stands in for it: the request is signed, and came from
 * another one. If somebody does, what is not protected has no state either. A listener with state of
 * the kernel's own TCP-AO comes here if the child is refused.
 */
int tao_copy_all_matching(const struct sock *sk, struct sock *newsk, struct request_sock *req,
			  struct sk_buff *skb, int family)
{
	struct tcp_ao_info *info = tao_ao_info(sk);
	const struct tao_conn *listener = tao_of_listener(sk, info);
	struct tcp_request_sock *treq = tcp_rsk(req);
	enum tao_child child = TAO_CHILD_REFUSED;
	const struct tcphdr *th = tcp_hdr(skb);
	int err = -EKEYREJECTED;
	u32 ao;

	ao = tao_rust_find_ao((const u8 *)th, th->doff * 4);
	if (listener)
		child = tao_judge_child(listener, newsk, req, th, ao);
	if (child != TAO_CHILD_REFUSED) {
		treq->used_tcp_ao = child == TAO_CHILD_PROTECTED;
		/* The ACK may ask for another key than the SYN did. */
		if (ao) {
			const struct tcp_ao_hdr *aoh = (const void *)th + ao;

			treq->ao_keyid = aoh->rnext_keyid;
			treq->ao_rcv_next = aoh->keyid;
		}
		err = info || treq->used_tcp_ao ? tao_make_child(listener, newsk, treq) : 0;
	}
	if (err)
		tao_hand_back(newsk);
	return err;
}
