// SPDX-License-Identifier: GPL-2.0
/* What comes for a socket or a request: signed segments, and those that are not. */
#include <net/tcp.h>
#include "conn.h"
#include "ends.h"
#include "hook.h"
#include "net.h"
#include "receive.h"
#include "rust.h"
#include "segment.h"
#include "standin.h"

bool tao_ours_inbound(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	struct tcp_ao_info *info = tao_ao_info(sk);

	if (info)
		return tao_ours(info);
	if (tao_parked(sk))
		return true;
	return (READ_ONCE(sk->sk_state) == TCP_LISTEN ||
		TAO_ARG(fregs, 3, const struct request_sock *)) && tao_stand_in(sk);
}

/* Every signed segment: none of the questions of the general callback, and no indirect call. */
void notrace tao_call_inbound(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			      struct ftrace_regs *fregs)
{
	if (tao_ask(tao_ours_inbound, fregs))
		tao_redirect(fregs, tao_inbound_ao_hash);
}

/* Every signed segment comes here: in a softirq, under an RCU read lock, with @sk not locked. */
enum skb_drop_reason tao_inbound_ao_hash(struct sock *sk, const struct sk_buff *skb,
					 unsigned short family, const struct request_sock *req,
					 int l3index, const struct tcp_ao_hdr *aoh)
{
	struct tcp_ao_info *info = tao_ao_info(sk);
	enum tao_context context = TAO_UNPROTECTED;
	struct tao_conn *conn = tao_ours(info);
	struct tao_numbers numbers = {};
	struct tao_segment seg;
	struct tao_side side;
	bool begins = false;

	if (unlikely(req)) {
		/* The listener may be closed, and even have a connection: the request lives on. */
		conn = conn ?: tao_parked(sk) ?: tao_of_listener(sk, info);
		context = TAO_REQUEST;
		tao_numbers_of_req(req, &numbers);
		numbers.seq = numbers.risn;
	} else if (likely(conn)) {
		/* The stack sets the ISN of the peer first, and then the state that has one. */
		u8 now_in = smp_load_acquire(&sk->sk_state);
		u64 place = tao_numbers_of_conn(sk, conn, &numbers);

		begins = now_in == TCP_SYN_SENT || now_in == TCP_SYN_RECV;
		if (likely((1 << now_in) & TCP_AO_ESTABLISHED)) {
			context = TAO_PAIRED;
			numbers.sne = place >> 32;
			numbers.seq = place;
		} else if (now_in == TCP_SYN_SENT) {
			context = TAO_SYN_SENT;
		} else if (now_in == TCP_SYN_RECV) {
			context = TAO_PAIRED;
			numbers.seq = numbers.risn;
		} else {
			context = now_in == TCP_LISTEN ? TAO_LISTEN : TAO_CLOSED;
		}
	} else {
		conn = tao_parked(sk);
		if (!conn && READ_ONCE(sk->sk_state) == TCP_LISTEN) {
			conn = tao_of_listener(sk, info);
			context = TAO_LISTEN;
		}
	}
	/* The state of the socket has gone since the callback found it, and so does the segment. */
	if (unlikely(!conn))
		return SKB_DROP_REASON_TCP_CLOSE;
	/* A connection is in the VRF that it began in, whatever VRF its segments come through. */
	if (req)
		side = tao_side_of_sock(req_to_sk((struct request_sock *)req));
	else if (context == TAO_LISTEN || context == TAO_UNPROTECTED)
		side = tao_side_at(sk, l3index);
	else if (unlikely(begins)) /* The state may still have that of the last connection. */
		side = tao_side_of_sock(sk);
	else
		side = tao_side_of_conn(conn);
	tao_segment_of_skb(skb, family, side, &seg);
	return tao_rust_receive(conn, sk, &seg, l3index, context, &numbers);
}

/* Whether what comes from @addr for @sk, whose state is @conn, has to be signed. */
static bool tao_peer_keyed(const struct tao_conn *conn, const struct sock *sk, int l3index,
			   const union tcp_ao_addr *addr, int family)
{
	struct tao_ends ends;

	tao_ends_of_addr(addr, family, sk, l3index, &ends);
	return tao_rust_must_sign(conn, &ends);
}

bool tao_ours_do_lookup(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	struct tcp_ao_info *info = tao_ao_info(sk);

	return tao_ours(info) ||
	       (!info && READ_ONCE(sk->sk_state) == TCP_LISTEN && tao_stand_in(sk));
}

/*
 * The stack asks whether AO is required of a peer that has sent a segment without it, and, for the
 * ACK of a request, whether there is a key to sign it with. TCP_MD5SIG asks, too, and is told no:
 * see tao_md5_parse(). The context does not tell that from segments, since a socket's backlog is
 * worked off outside of softirqs; the task does that is in TCP_MD5SIG, unless a softirq interrupts
 * it.
 *
 * Of a listener without state it asks for a key only, for what answers a signed request.
 */
struct tcp_ao_key *tao_do_lookup(const struct sock *sk, int l3index, const union tcp_ao_addr *addr,
				 int family, int sndid, int rcvid)
{
	struct tcp_ao_info *info = tao_ao_info(sk);
	struct tao_conn *conn = tao_of_listener(sk, info);

	if (conn && !info)
		return &conn->key;
	if (!conn || (READ_ONCE(conn->md5_setter) == current && !in_softirq()))
		return NULL;
	return tao_peer_keyed(conn, sk, l3index, addr, family) ? &conn->key : NULL;
}

/* MD5 does not go for a peer whose connection is, or has to be, protected (RFC 5925 8, R32). */
bool tao_ours_md5_do_lookup(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	const struct tao_conn *conn = tao_attached(sk);

	return conn &&
	       tao_peer_keyed(conn, sk, TAO_ARG(fregs, 1, int),
			      TAO_ARG(fregs, 2, const union tcp_ao_addr *),
			      TAO_ARG(fregs, 3, int));
}

struct tcp_md5sig_key *tao_md5_do_lookup(const struct sock *sk, int l3index,
					 const union tcp_md5_addr *addr, int family,
					 bool any_l3index)
{
	return NULL;
}
