// SPDX-License-Identifier: GPL-2.0
/*
 * The seam: functions of the stack's own TCP-AO that are replaced for sockets that carry our state.
 *
 * Each replacement has the prototype of the function in its name (net/ipv4/tcp_ao.c and others of
 * the kernel's source), collects what Rust needs to know, and does what Rust says. In the order of
 * a connection's life:
 *
 *	open		tcp_connect; tcp_conn_request, tcp_make_synack, ao_lookup,
 *			tcp_v{4,6}_ao_synack_hash; tcp_v{4,6}_ao_lookup_rsk, tcp_ao_copy_all_matching
 *	transmit	calc_ao_hash
 *	receive		tcp_inbound_ao_hash (signed segments), tcp_ao_do_lookup (unsigned ones)
 *	replies		tcp_ao_prepare_reset, tcp_v{4,6}_ao_calc_key_rsk, tcp_ao_established_key,
 *			tcp_ao_hash_hdr
 *	TIME-WAIT	tcp_ao_time_wait, tcp_timewait_state_process
 *	end		tcp_ao_destroy_sock
 *
 * Left to the stack, since its own code does right with our state: tcp_ao_connect_init (ISN of
 * this end), tcp_ao_finish_connect and tcp_rcv_synsent_state_process (ISN of the peer), the SNE on
 * snd_una, tcp_ao_ignore_icmp.
 *
 * Each entry from the stack, callback or replacement, loads ao_info once and hands the result on: in
 * softirq it may be another at the next load, or none. Only where the socket is locked it stays what
 * it is. scripts/check-loads finds a second load.
 */
#include <linux/ftrace.h>
#include <linux/module.h>
#include <net/inet_timewait_sock.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/tcp.h>
#include "args.h"
#include "conn.h"
#include "hook.h"
#include "peer.h"
#include "pin.h"
#include "rust.h"
#include "seam.h"
#include "segment.h"
#include "tables.h"

/* ---- open ---- */

/* The connection of @sk is to be protected: @conn belongs to it from now on. */
static int tao_protect(struct sock *sk, struct tao_conn *conn)
{
	struct tao_peer peer;
	int err;

	/* A drain has to come to its end: no connection begins meanwhile. */
	if (tao_is_draining())
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
static void tao_not_connected(struct tao_conn *conn)
{
	conn->info.ao_required = 0;
	tao_rust_not_connected(conn);
}

/*
 * A protected connection begins on a socket that had no state attached, but can be found already.
 * What came for it so far was not checked, and waits in the backlog, since the socket is locked.
 * None of it can be an answer: nothing was sent yet. May sleep.
 */
static void tao_drop_backlog(struct sock *sk)
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
static void tao_connected_in_repair(struct sock *sk, struct tao_conn *conn)
{
	struct tcp_sock *tp = tcp_sk(sk);

	tp->tcp_header_len -= tcp_ao_len_aligned(&conn->key);
	tp->pred_flags = 0;
	inet_csk(sk)->icsk_pmtu_cookie = 0;
}

/* The replacement may sleep, and if the state is parked nothing else holds us. */
static bool tao_ours_connect(struct ftrace_regs *fregs)
{
	return tao_find(TAO_ARG(fregs, 0, struct sock *)) && try_module_get(THIS_MODULE);
}

static int tao_connect(struct sock *sk)
{
	/* It cannot go: the caller has the socket locked. */
	struct tao_conn *conn = tao_find(sk);
	bool watched = tao_attached(sk);
	int err = 0;

	/* The socket's last connection may be in TIME-WAIT still. */
	if (refcount_read(&conn->info.refcnt) > 1)
		err = tao_replace(sk, &conn);
	if (!err)
		err = tao_rust_connect(conn, sk);
	if (err >= 0)
		err = err ? tao_protect(sk, conn) : tao_park(sk, conn);
	if (!err && !watched && tao_attached(sk))
		tao_drop_backlog(sk);
	/*
	 * With TCP_FASTOPEN_CONNECT the socket could be found, and was not locked, since connect(): it
	 * may have answered somebody whose segments nobody has verified.
	 */
	if (!err && tao_attached(sk) && sk->sk_state != TCP_SYN_SENT)
		err = -ECONNABORTED;
	if (!err)
		err = tcp_connect(sk);
	if (err)
		tao_not_connected(conn);
	else if (tcp_sk(sk)->repair && tao_attached(sk))
		tao_connected_in_repair(sk, conn);
	module_put(THIS_MODULE);
	return err;
}

/*
 * A socket whose last connection was not protected listens: from now on unsigned segments of peers
 * with keys must be dropped, so that its state is attached again, before the first SYN.
 */
static bool tao_before_listen(struct ftrace_regs *fregs)
{
	struct sock *sk = TAO_ARG(fregs, 0, struct sock *);
	struct tao_conn *conn = tao_find(sk);

	if (!conn)
		return false;
	tao_not_connected(conn);
	return tao_attached(sk) ? tao_take_over(sk) : tao_attach(sk, conn);
}

static int tao_refuse_listen(struct sock *sk)
{
	return -EBUSY;
}

static struct tcp_md5sig_key *tao_md5_lookup(const struct sock *sk, const struct sock *addr_sk)
{
	return NULL;
}

/*
 * TCP_MD5SIG: the socket is locked. The kernel's function asks whether the peer must use AO, and
 * then refuses. For a connection that is protected that is right. Before there is one it is not,
 * since MD5 keys go well with ours, and it is told no: see tao_do_lookup().
 */
static int tao_md5_parse(struct sock *sk, int optname, sockptr_t optval, int optlen)
{
	struct tao_conn *conn = tao_attached(sk);
	int err;

	/* Its last connection may have ended without a call of the program's. */
	if (conn && sk->sk_state == TCP_CLOSE)
		tao_not_connected(conn);
	if (conn && tao_rust_takes_md5(conn))
		WRITE_ONCE(conn->md5_setter, current);
	err = tao_orig_af(sk)->md5_parse(sk, optname, optval, optlen);
	if (conn)
		WRITE_ONCE(conn->md5_setter, NULL);
	return err;
}

static int tao_ao_parse(struct sock *sk, int optname, sockptr_t optval, int optlen)
{
	return -EBUSY;
}

/* The stack asks before a SYN, and before a SYN-ACK for @addr_sk. NULL: do not send it. */
static struct tcp_ao_key *tao_ao_lookup(const struct sock *sk, struct sock *addr_sk, int sndid,
					int rcvid)
{
	struct tao_conn *conn = tao_attached(sk);
	struct tao_peer peer;

	if (!conn)
		return NULL;
	if (addr_sk != sk) {
		tao_peer_of_sock(addr_sk, &peer);
		if (!tao_rust_may_send(conn, &peer))
			return NULL;
	}
	return &conn->key;
}

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
static bool tao_before_conn_request(struct ftrace_regs *fregs)
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

static int tao_drop_syn(struct request_sock_ops *rsk_ops,
			const struct tcp_request_sock_ops *af_ops, struct sock *sk,
			struct sk_buff *skb)
{
	tcp_listendrop(sk);
	return 0;
}

/*
 * A signed SYN that was accepted without a key gets an unsigned SYN-ACK. One that has to be signed
 * and cannot be is not sent: for want of a key, or because SO_REUSEPORT has handed the request to a
 * listener without state.
 */
static bool tao_before_make_synack(struct ftrace_regs *fregs)
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
static struct sk_buff *tao_make_no_synack(const struct sock *sk, struct dst_entry *dst,
					  struct request_sock *req,
					  struct tcp_fastopen_cookie *foc,
					  enum tcp_synack_type synack_type,
					  struct sk_buff *syn_skb)
{
	dst_release(dst);
	return NULL;
}

static bool tao_ours_synack_hash(struct ftrace_regs *fregs)
{
	return tao_is_our_key(TAO_ARG(fregs, 1, const struct tcp_ao_key *));
}

static int tao_synack_hash(char *hash, struct tcp_ao_key *key, struct request_sock *req,
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

static bool tao_ours_lookup_rsk(struct ftrace_regs *fregs)
{
	return tao_attached(TAO_ARG(fregs, 0, const struct sock *));
}

/*
 * A key here would make header prediction match, which takes no notice of a timestamp beside AO.
 */
static struct tcp_ao_key *tao_lookup_rsk(const struct sock *sk, struct request_sock *req,
					 int sndid, int rcvid)
{
	return NULL;
}

/* A signed request may have been handed to a listener without state, by SO_REUSEPORT. */
static bool tao_ours_copy_all(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	const struct request_sock *req = TAO_ARG(fregs, 2, const struct request_sock *);

	struct tcp_ao_info *info = rcu_dereference_raw(tcp_sk(sk)->ao_info);

	return tao_ours(info) || (tcp_rsk(req)->used_tcp_ao && !info);
}

/* A child comes to be: softirq, only we know it. */
static int tao_copy_all_matching(const struct sock *sk, struct sock *newsk,
				 struct request_sock *req, struct sk_buff *skb, int family)
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

/* ---- transmit ---- */

static void tao_calc_key_sk(struct tcp_ao_key *key, u8 *tkey, const struct sock *sk, __be32 sisn,
			    __be32 disn, bool send)
{
}

/* Every segment that an attached socket sends: socket locked. */
static int tao_calc_ao_hash(char *location, struct tcp_ao_key *key, const struct sock *sk,
			    const struct sk_buff *skb, const u8 *tkey, int hash_offset, u32 sne)
{
	struct tao_conn *conn = tao_conn_of_key(key);
	struct tcphdr *th = (struct tcphdr *)(location - hash_offset);
	struct tao_numbers numbers = {
		.lisn = ntohl(conn->info.lisn),
		.risn = ntohl(conn->info.risn),
		.sne = sne,
		.seq = ntohl(th->seq),
	};
	struct tao_segment seg = {
		.skb = skb,
		.th = (u8 *)th,
		.header_len = th->doff * 4,
		.len = skb->len,
		.ao = hash_offset - sizeof(struct tcp_ao_hdr),
	};
	int err;

	if (sk->sk_family == AF_INET6 && !ipv6_addr_v4mapped(&sk->sk_v6_daddr)) {
		seg.family = AF_INET6;
		seg.saddr = (const u8 *)&sk->sk_v6_rcv_saddr;
		seg.daddr = (const u8 *)&sk->sk_v6_daddr;
	} else {
		seg.family = AF_INET;
		seg.saddr = (const u8 *)&sk->sk_rcv_saddr;
		seg.daddr = (const u8 *)&sk->sk_daddr;
	}
	err = tao_rust_transmit(conn, &seg, &numbers);
	if (unlikely(err)) {
		memset(location, 0, TAO_MAC_LEN);
		tao_drop_segment((struct sock *)sk, min(err, 0));
	}
	return err;
}

/* ---- receive ---- */

static bool tao_ours_inbound(struct ftrace_regs *fregs)
{
	return tao_find(TAO_ARG(fregs, 0, const struct sock *));
}

/* Every signed segment: softirq, RCU read lock, socket not locked. */
static enum skb_drop_reason
tao_inbound_ao_hash(struct sock *sk, const struct sk_buff *skb, unsigned short family,
		    const struct request_sock *req, int l3index, const struct tcp_ao_hdr *aoh)
{
	struct tao_conn *conn = tao_attached(sk);
	enum tao_state state = TAO_UNPROTECTED;
	struct tao_numbers numbers = {};
	struct tao_segment seg;
	struct tao_peer peer;
	bool begins = false;

	if (unlikely(req)) {
		/* The listener may be closed, and even have a connection: the request lives on. */
		conn = conn ?: tao_parked(sk);
		state = TAO_REQUEST;
		tao_numbers_of_req(req, &numbers);
		numbers.seq = numbers.risn;
	} else if (likely(conn)) {
		/* The stack sets the ISN of the peer first, and then the state that has one. */
		u8 now_in = smp_load_acquire(&sk->sk_state);
		u64 place = tao_numbers_of_conn(sk, conn, &numbers);

		begins = now_in == TCP_SYN_SENT || now_in == TCP_SYN_RECV;
		if (likely((1 << now_in) & TCP_AO_ESTABLISHED)) {
			state = TAO_PAIRED;
			numbers.sne = place >> 32;
			numbers.seq = place;
		} else if (now_in == TCP_SYN_SENT) {
			state = TAO_SYN_SENT;
		} else if (now_in == TCP_SYN_RECV) {
			state = TAO_PAIRED;
			numbers.seq = numbers.risn;
		} else {
			state = now_in == TCP_LISTEN ? TAO_LISTEN : TAO_CLOSED;
		}
	} else {
		conn = tao_parked(sk);
	}
	/* Its state went between the callback and here: so does the segment. */
	if (unlikely(!conn))
		return SKB_DROP_REASON_TCP_CLOSE;
	tao_segment_of_skb(skb, family, &seg);
	/* A connection is in the VRF that it began in, whatever VRF sends it segments. */
	if (req)
		tao_peer_of_sock(req_to_sk((struct request_sock *)req), &peer);
	else if (state == TAO_LISTEN || state == TAO_UNPROTECTED)
		tao_peer_of_skb(skb, family, sk, l3index, &peer);
	else if (unlikely(begins)) /* The state may still have that of the last connection. */
		tao_peer_of_sock(sk, &peer);
	else
		tao_peer_of_conn(conn, &peer);
	return tao_rust_receive(conn, sk, &seg, &peer, state, &numbers);
}

/* Whether what comes from @addr for @sk, whose state is @conn, has to be signed. */
static bool tao_peer_keyed(const struct tao_conn *conn, const struct sock *sk, int l3index,
			   const union tcp_ao_addr *addr, int family)
{
	struct tao_peer peer;

	tao_peer_of_addr(addr, family, sk, l3index, &peer);
	return tao_rust_must_sign(conn, &peer);
}

static bool tao_ours_do_lookup(struct ftrace_regs *fregs)
{
	return tao_attached(TAO_ARG(fregs, 0, const struct sock *));
}

/*
 * "Is AO required of this peer?", for a segment without it; and for the ACK of a request, whether
 * there is a key to sign it with. A socket's backlog is worked off outside of softirq, so that it
 * is not the context that tells these from TCP_MD5SIG: it is the task that is in it, and softirqs
 * may interrupt that one, too.
 */
static struct tcp_ao_key *tao_do_lookup(const struct sock *sk, int l3index,
					const union tcp_ao_addr *addr, int family, int sndid,
					int rcvid)
{
	struct tao_conn *conn = tao_attached(sk);

	if (!conn || (READ_ONCE(conn->md5_setter) == current && !in_softirq()))
		return NULL;
	return tao_peer_keyed(conn, sk, l3index, addr, family) ? &conn->key : NULL;
}

/* MD5 does not go for a peer whose connection is, or has to be, protected (RFC 5925 8, R32). */
static bool tao_ours_md5_do_lookup(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	const struct tao_conn *conn = tao_attached(sk);

	return conn &&
	       tao_peer_keyed(conn, sk, TAO_ARG(fregs, 1, int),
			      TAO_ARG(fregs, 2, const union tcp_ao_addr *),
			      TAO_ARG(fregs, 3, int));
}

static struct tcp_md5sig_key *tao_md5_do_lookup(const struct sock *sk, int l3index,
						const union tcp_md5_addr *addr, int family,
						bool any_l3index)
{
	return NULL;
}

/* ---- replies ---- */

/* The state that answers for @sk, which may be a request or a TIME-WAIT socket. */
static struct tao_conn *tao_find_any(const struct sock *sk)
{
	switch (READ_ONCE(sk->sk_state)) {
	case TCP_TIME_WAIT:
		return tao_attached_tw(inet_twsk(sk));
	case TCP_NEW_SYN_RECV:
		return tao_attached(inet_reqsk(sk)->rsk_listener);
	default:
		return tao_attached(sk);
	}
}

static bool tao_ours_prepare_reset(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);

	return sk && tao_find_any(sk);
}

/* An RST in answer to @skb. An error means that none is sent. */
static int tao_prepare_reset(const struct sock *sk, struct sk_buff *skb,
			     const struct tcp_ao_hdr *aoh, int l3index, u32 seq,
			     struct tcp_ao_key **key, char **traffic_key,
			     bool *allocated_traffic_key, u8 *keyid, u32 *sne)
{
	struct tao_conn *conn = tao_find_any(sk);
	/* As in tao_inbound_ao_hash(). */
	u8 state = smp_load_acquire(&sk->sk_state);
	struct tao_reply *reply;
	u32 basis;

	*allocated_traffic_key = false;
	/* Without both ISNs there is nothing to sign with (RFC 5925 5.2). */
	if (!conn || state == TCP_LISTEN || state == TCP_SYN_SENT)
		return -ENOENT;
	*key = &conn->key;
	*keyid = 0;	/* both ids are written with the MAC */
	reply = kzalloc(sizeof(*reply), GFP_ATOMIC);
	if (!reply)
		return -ENOMEM;
	if (state == TCP_NEW_SYN_RECV) {
		tao_peer_of_sock(sk, &reply->peer);
		reply->preferred = tcp_rsk(inet_reqsk(sk))->ao_keyid;
		tao_numbers_of_req(inet_reqsk(sk), &reply->numbers);
		basis = reply->numbers.lisn;
	} else {
		reply->own = true;
		tao_peer_of_conn(conn, &reply->peer);
		reply->numbers.lisn = ntohl(READ_ONCE(conn->info.lisn));
		reply->numbers.risn = ntohl(READ_ONCE(conn->info.risn));
		reply->numbers.sne = READ_ONCE(conn->info.snd_sne);
		basis = state == TCP_TIME_WAIT ? tcp_twsk(sk)->tw_snd_nxt :
			READ_ONCE(tcp_sk(sk)->snd_una);
	}
	*sne = tao_rust_sne(reply->numbers.sne, basis, seq);
	if (!tao_rust_may_send(conn, &reply->peer)) {
		kfree(reply);
		return -ENOKEY;
	}
	*traffic_key = (char *)reply;
	*allocated_traffic_key = true;
	return 0;
}

static bool tao_ours_calc_key_rsk(struct ftrace_regs *fregs)
{
	return tao_is_our_key(TAO_ARG(fregs, 0, const struct tcp_ao_key *));
}

/* An ACK for a request: @buf was allocated with TAO_REPLY_ROOM bytes, our key's digest size. */
static void tao_calc_key_rsk(struct tcp_ao_key *key, u8 *buf, struct request_sock *req)
{
	struct tao_reply *reply = (struct tao_reply *)buf;

	memset(reply, 0, sizeof(*reply));
	tao_peer_of_sock(req_to_sk(req), &reply->peer);
	tao_numbers_of_req(req, &reply->numbers);
	reply->preferred = tcp_rsk(req)->ao_keyid;
}

static bool tao_ours_established_key(struct ftrace_regs *fregs)
{
	return tao_ours(TAO_ARG(fregs, 1, struct tcp_ao_info *));
}

/* The ACK of a TIME-WAIT socket. Without a key here it would go out unsigned. */
static struct tcp_ao_key *tao_established_key(const struct sock *sk, struct tcp_ao_info *ao,
					      int sndid, int rcvid)
{
	return &((struct tao_conn *)ao)->key;
}

static bool tao_ours_hash_hdr(struct ftrace_regs *fregs)
{
	return tao_is_our_key(TAO_ARG(fregs, 2, const struct tcp_ao_key *));
}

/* Signs a header without payload. @saddr, @daddr: of the reply. */
static int tao_hash_hdr(unsigned short family, char *hash, struct tcp_ao_key *key,
			const u8 *tkey, const union tcp_ao_addr *daddr,
			const union tcp_ao_addr *saddr, const struct tcphdr *th, u32 sne)
{
	struct tao_conn *conn = tao_conn_of_key(key);
	struct tao_segment seg = {
		.th = (u8 *)th,
		.header_len = th->doff * 4,
		.len = th->doff * 4,
		.ao = (u8 *)hash - (u8 *)th - sizeof(struct tcp_ao_hdr),
		.family = family,
		.saddr = (const u8 *)saddr,
		.daddr = (const u8 *)daddr,
	};
	struct tao_reply reply;

	if (tkey == snd_other_key(key)) {
		/* the ACK of a TIME-WAIT socket */
		reply = (struct tao_reply) {
			.numbers.lisn = ntohl(conn->info.lisn),
			.numbers.risn = ntohl(conn->info.risn),
			.own = true,
		};
		tao_peer_of_conn(conn, &reply.peer);
	} else {
		reply = *(const struct tao_reply *)tkey;
	}
	/* The stack says 0 for every request. */
	reply.numbers.sne = reply.own ? sne : tao_rust_sne(0, reply.numbers.lisn, ntohl(th->seq));
	if (!tao_rust_reply(conn, &seg, &reply))
		return 0;
	memset(hash, 0, TAO_MAC_LEN);
	return 1;
}

/* ---- TIME-WAIT ---- */

static bool tao_ours_time_wait(struct ftrace_regs *fregs)
{
	return tao_attached(TAO_ARG(fregs, 1, const struct sock *));
}

static void tao_time_wait(struct tcp_timewait_sock *tcptw, struct tcp_sock *tp)
{
	struct sock *sk = (struct sock *)tp;
	struct tao_conn *conn = tao_attached(sk);

	tao_share(conn, &tcptw->tw_sk, tao_rcv_place(sk, conn));
}

/*
 * The stack verifies nothing in TIME-WAIT. What fails goes no further, and nothing does while an
 * answer could not be signed. A SYN that opens a new connection meets the listener's check too.
 *
 * This is a callback of ftrace, which has preemption disabled if the function has a tracer, too.
 * The allocator may sleep then on PREEMPT_RT, whatever it is asked for.
 */
static bool tao_before_timewait(struct ftrace_regs *fregs)
{
	const struct inet_timewait_sock *tw = TAO_ARG(fregs, 0, const struct inet_timewait_sock *);
	const struct sk_buff *skb = TAO_ARG(fregs, 1, const struct sk_buff *);
	struct tao_conn *conn = tao_attached_tw(tw);
	struct tao_numbers numbers;
	struct tao_segment seg;
	struct tao_peer peer;
	u16 family;

	if (!conn)
		return false;
	tao_peer_of_conn(conn, &peer);
	numbers = (struct tao_numbers) {
		.lisn = ntohl(conn->info.lisn),
		.risn = ntohl(conn->info.risn),
		.sne = conn->tw_rcv >> 32,
		.seq = conn->tw_rcv,
	};
	family = skb->protocol == htons(ETH_P_IPV6) ? AF_INET6 : AF_INET;
	tao_segment_of_skb(skb, family, &seg);
	return tao_rust_receive(conn, (const struct sock *)tw, &seg, &peer,
				TAO_TIME_WAIT, &numbers) ||
	       !tao_rust_may_send(conn, &peer);
}

static enum tcp_tw_status
tao_timewait_drop(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th,
		  u32 *tw_isn, enum skb_drop_reason *drop_reason)
{
	*drop_reason = SKB_DROP_REASON_TCP_AOFAILURE;
	inet_twsk_put(tw);
	return TCP_TW_SUCCESS;
}

/* ---- end ---- */

static bool tao_before_destroy(struct ftrace_regs *fregs)
{
	const struct sock *sk = TAO_ARG(fregs, 0, const struct sock *);
	bool twsk = TAO_ARG(fregs, 1, unsigned long) & 0xff;

	if (twsk)
		return tao_attached_tw(inet_twsk(sk));
	/* tcp_connect() calls it for a socket that lives on, with MD5. */
	if (refcount_read(&sk->sk_refcnt))
		return false;
	tao_forget(sk);
	return tao_attached(sk);
}

static void tao_destroy_sock(struct sock *sk, bool twsk)
{
	struct tcp_ao_info __rcu **at = twsk ? &tcp_twsk(sk)->ao_info : &tcp_sk(sk)->ao_info;
	struct tao_conn *conn = tao_ours(rcu_dereference_raw(*at));

	rcu_assign_pointer(*at, NULL);
	tao_leave(conn, twsk);
}

/* ---- socket options ---- */

/* Process context; may sleep, so that the module must be held before we get there. */
static bool tao_ours_sockopt(struct ftrace_regs *fregs)
{
	int level = TAO_ARG(fregs, 1, int), optname = TAO_ARG(fregs, 2, int);

	return level == SOL_TCP && optname >= TCP_AO_ADD_KEY && optname <= TCP_AO_REPAIR &&
	       try_module_get(THIS_MODULE);
}

static int tao_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
			  unsigned int optlen)
{
	struct tao_sockopt call = { sk, optname, optlen, optval, {} };
	int ret = tao_rust_setsockopt(&call);

	if (ret == TAO_NOT_OURS)
		ret = tcp_prot.setsockopt(sk, level, optname, optval, optlen);
	module_put(THIS_MODULE);
	return ret;
}

static int tao_getsockopt(struct sock *sk, int level, int optname, char __user *optval,
			  int __user *optlen)
{
	struct tao_sockopt call = { sk, optname, 0, USER_SOCKPTR(optval), USER_SOCKPTR(optlen) };
	int ret = tao_rust_getsockopt(&call);

	if (ret == TAO_NOT_OURS)
		ret = tcp_prot.getsockopt(sk, level, optname, optval, optlen);
	module_put(THIS_MODULE);
	return ret;
}

const struct tcp_sock_af_ops tao_af_ops = {
	.md5_lookup	= tao_md5_lookup,
	.md5_parse	= tao_md5_parse,
	.ao_parse	= tao_ao_parse,
	.ao_lookup	= tao_ao_lookup,
	.ao_calc_key_sk	= tao_calc_key_sk,
	.calc_ao_hash	= tao_calc_ao_hash,
};

/* ---- tables ---- */

struct tao_hook tao_hot_hooks[] = {
	TAO_HOOK(tcp_inbound_ao_hash, tao_ours_inbound, tao_inbound_ao_hash),
	{}
};

struct tao_hook tao_sockopt_hooks[] = {
	TAO_HOOK(tcp_setsockopt, tao_ours_sockopt, tao_setsockopt),
	TAO_HOOK(tcp_getsockopt, tao_ours_sockopt, tao_getsockopt),
	{}
};

struct tao_hook tao_cold_hooks[] = {
	TAO_HOOK(tcp_connect, tao_ours_connect, tao_connect),
	TAO_HOOK(inet_csk_listen_start, tao_before_listen, tao_refuse_listen),
	TAO_HOOK(tcp_conn_request, tao_before_conn_request, tao_drop_syn),
	TAO_HOOK(tcp_make_synack, tao_before_make_synack, tao_make_no_synack),
	TAO_HOOK(tcp_v4_ao_synack_hash, tao_ours_synack_hash, tao_synack_hash),
	TAO_HOOK(tcp_v6_ao_synack_hash, tao_ours_synack_hash, tao_synack_hash),
	TAO_HOOK(tcp_v4_ao_lookup_rsk, tao_ours_lookup_rsk, tao_lookup_rsk),
	TAO_HOOK(tcp_v6_ao_lookup_rsk, tao_ours_lookup_rsk, tao_lookup_rsk),
	TAO_HOOK(tcp_ao_copy_all_matching, tao_ours_copy_all, tao_copy_all_matching),
	TAO_HOOK(tcp_ao_do_lookup, tao_ours_do_lookup, tao_do_lookup),
	TAO_HOOK(__tcp_md5_do_lookup, tao_ours_md5_do_lookup, tao_md5_do_lookup),
	TAO_HOOK(tcp_ao_prepare_reset, tao_ours_prepare_reset, tao_prepare_reset),
	TAO_HOOK(tcp_v4_ao_calc_key_rsk, tao_ours_calc_key_rsk, tao_calc_key_rsk),
	TAO_HOOK(tcp_v6_ao_calc_key_rsk, tao_ours_calc_key_rsk, tao_calc_key_rsk),
	TAO_HOOK(tcp_ao_established_key, tao_ours_established_key, tao_established_key),
	TAO_HOOK(tcp_ao_hash_hdr, tao_ours_hash_hdr, tao_hash_hdr),
	TAO_HOOK(tcp_ao_time_wait, tao_ours_time_wait, tao_time_wait),
	TAO_HOOK(tcp_timewait_state_process, tao_before_timewait, tao_timewait_drop),
	TAO_HOOK(tcp_ao_destroy_sock, tao_before_destroy, tao_destroy_sock),
	{}
};
