// SPDX-License-Identifier: GPL-2.0
/* What is sent for a request or without a socket: an RST, the ACK of a request or of TIME-WAIT. */
#include <net/tcp.h>
#include "conn.h"
#include "ends.h"
#include "hook.h"
#include "reply.h"
#include "rust.h"
#include "segment.h"
#include "standin.h"

/* The state that answers for @sk, which may be a request or a TIME-WAIT socket. */
static struct tao_conn *tao_find_any(const struct sock *sk)
{
	switch (READ_ONCE(sk->sk_state)) {
	case TCP_TIME_WAIT:
		return tao_attached_tw(inet_twsk(sk));
	case TCP_NEW_SYN_RECV:
		sk = inet_reqsk(sk)->rsk_listener;
		return tao_of_listener(sk, tao_ao_info(sk));
	default:
		return tao_attached(sk);
	}
}

bool tao_ours_prepare_reset(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);

	return sk && tao_find_any(sk);
}

/* An RST is to answer @skb. An error means that none is sent. */
int tao_prepare_reset(const struct sock *sk, struct sk_buff *skb, const struct tcp_ao_hdr *aoh,
		      int l3index, u32 seq, struct tcp_ao_key **key, char **traffic_key,
		      bool *allocated_traffic_key, u8 *keyid, u32 *sne)
{
	struct tao_conn *conn = tao_find_any(sk);
	/* The stack sets the ISN of the peer first, and then the state that has one. */
	u8 state = smp_load_acquire(&sk->sk_state);
	struct tao_reply *reply;
	struct tao_ends ends;
	u32 basis;

	*allocated_traffic_key = false;
	/* Without both ISNs there is nothing to sign with (RFC 5925 5.2). */
	if (!conn || state == TCP_LISTEN || state == TCP_SYN_SENT)
		return -ENOENT;
	*key = &conn->key;
	*keyid = 0;	/* tao_hash_hdr() writes both ids with the MAC. */
	reply = kzalloc(sizeof(*reply), GFP_ATOMIC);
	if (!reply)
		return -ENOMEM;
	if (state == TCP_NEW_SYN_RECV) {
		reply->side = tao_side_of_sock(sk);
		reply->preferred = tcp_rsk(inet_reqsk(sk))->ao_keyid;
		tao_numbers_of_req(inet_reqsk(sk), &reply->numbers);
		basis = reply->numbers.lisn;
	} else {
		reply->own = true;
		reply->side = tao_side_of_conn(conn);
		reply->numbers.lisn = ntohl(READ_ONCE(conn->info.lisn));
		reply->numbers.risn = ntohl(READ_ONCE(conn->info.risn));
		reply->numbers.sne = READ_ONCE(conn->info.snd_sne);
		basis = state == TCP_TIME_WAIT ? tcp_twsk(sk)->tw_snd_nxt :
			READ_ONCE(tcp_sk(sk)->snd_una);
	}
	*sne = tao_rust_sne(reply->numbers.sne, basis, seq);
	tao_ends_of_skb(skb, tao_family_of_skb(skb), reply->side, &ends);
	if (!tao_rust_may_send(conn, &ends)) {
		kfree(reply);
		return -ENOKEY;
	}
	*traffic_key = (char *)reply;
	*allocated_traffic_key = true;
	return 0;
}

bool tao_ours_calc_key_rsk(struct ftrace_regs *fregs)
{
	return tao_is_our_key(TAO_ARG(fregs, 0, const struct tcp_ao_key *));
}

/* An ACK of a request is to be sent. @buf has TAO_REPLY_ROOM bytes, the digest size of our key. */
void tao_calc_key_rsk(struct tcp_ao_key *key, u8 *buf, struct request_sock *req)
{
	struct tao_reply *reply = (struct tao_reply *)buf;

	memset(reply, 0, sizeof(*reply));
	reply->side = tao_side_of_sock(req_to_sk(req));
	tao_numbers_of_req(req, &reply->numbers);
	reply->preferred = tcp_rsk(req)->ao_keyid;
}

bool tao_ours_established_key(struct ftrace_regs *fregs)
{
	return tao_ours(TAO_ARG(fregs, 1, struct tcp_ao_info *));
}

/* The ACK of a TIME-WAIT socket is to be sent. Without a key here it would be unsigned. */
struct tcp_ao_key *tao_established_key(const struct sock *sk, struct tcp_ao_info *ao, int sndid,
				       int rcvid)
{
	return &((struct tao_conn *)ao)->key;
}

bool tao_ours_hash_hdr(struct ftrace_regs *fregs)
{
	return tao_is_our_key(TAO_ARG(fregs, 2, const struct tcp_ao_key *));
}

/* Signs a header without payload. @saddr and @daddr are those of the reply. */
int tao_hash_hdr(unsigned short family, char *hash, struct tcp_ao_key *key, const u8 *tkey,
		 const union tcp_ao_addr *daddr, const union tcp_ao_addr *saddr,
		 const struct tcphdr *th, u32 sne)
{
	struct tao_conn *conn = tao_conn_of_key(key);
	struct tao_segment seg = tao_segment_to_sign(hash, hash - (const char *)th, NULL,
						     th->doff * 4);
	struct tao_reply reply;

	seg.family = family;
	seg.saddr = (const u8 *)saddr;
	seg.daddr = (const u8 *)daddr;
	if (tkey == snd_other_key(key)) {
		/* Only the ACK of a TIME-WAIT socket comes without a struct tao_reply. */
		reply = (struct tao_reply) {
			.numbers.lisn = ntohl(conn->info.lisn),
			.numbers.risn = ntohl(conn->info.risn),
			.own = true,
			.side = tao_side_of_conn(conn),
		};
	} else {
		reply = *(const struct tao_reply *)tkey;
	}
	seg.side = reply.side;
	/* @sne is 0 for every request. */
	reply.numbers.sne = reply.own ? sne : tao_rust_sne(0, reply.numbers.lisn, ntohl(th->seq));
	if (!tao_rust_reply(conn, &seg, &reply))
		return 0;
	memset(hash, 0, TAO_MAC_LEN);
	return 1;
}
