/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the C shims and the Rust side tell each other. bindgen makes the Rust declarations out of
 * this header in every build.
 *
 * C collects facts (where the header is, which state the socket is in) and does what Rust says;
 * every decision is Rust's. Functions named tao_rust_*() are written in Rust (src/glue/hooks.rs),
 * all others in C (src/shim/).
 */
#ifndef TAO_SHIM_H
#define TAO_SHIM_H

#include <crypto/aes-cbc-macs.h>
#include <crypto/sha1.h>
#include <crypto/sha2.h>
#include <linux/rhashtable-types.h>
#include <linux/seqlock_types.h>
#include <linux/sockptr.h>
#include <linux/tcp.h>
#include <net/dropreason.h>
#include <net/snmp.h>
#include <net/tcp_ao.h>
#include <uapi/linux/snmp.h>
#include <uapi/linux/tcp_authopt.h>

struct net;
struct sk_buff;
struct inet_timewait_sock;
struct sock;

/**
 * struct tao_peer - whom a key may match
 * @family: of the socket. An AF_INET6 socket sees IPv4 peers as ::ffff:a.b.c.d.
 * @addr: address of the peer, in the first 4 bytes for AF_INET
 * @l3index: L3 master device of the packet or of the socket's bound device, 0: none. Means
 *	nothing once that device is gone.
 * @vrf: the VRF that this is, as keys name it, for good
 */
struct tao_peer {
	__u16	family;
	__u8	addr[16];
	__u32	l3index;
	__u32	vrf;
};

/* The stack allocates this much for "the traffic key" of a request; struct tao_reply goes there. */
#define TAO_REPLY_ROOM		48

/*
 * Of each key the stack has two traffic keys, one for each direction: the second is this far behind
 * the first, and for the placeholder's algorithm it looks at the first bytes of either.
 */
#define TAO_TRAFFIC_KEYS	(TAO_REPLY_ROOM + SHA1_DIGEST_SIZE)

/**
 * struct tao_conn - the part of a socket's state that C, and the stack itself, look at
 * @info: what tcp_sock.ao_info points to. First, so that the pointer finds all.
 * @parked: node in the table of sockets whose connection is not protected
 * @sk: the socket, key of @parked; NULL once it is gone
 * @tw: its TIME-WAIT socket, while that has the state
 * @attached: node in the list of states that are attached
 * @peer: its other end, if the connection is protected. Under the socket lock; others read it by
 *	tao_peer_of_conn().
 * @seq: odd while @peer is written, or what TCP_REPAIR_AUTHOPT sets
 * @md5_setter: the task that is in TCP_MD5SIG of the socket, if it may be
 * @rcv_shift: what the place in the peer's stream is ahead of what its ISN and tcp_sock.bytes_received
 *	say: not 0 only for a connection that was restored (TCP_REPAIR_AUTHOPT)
 * @tw_rcv: that place when the TIME-WAIT socket was made
 * @key: stands for "the key" where the stack wants one
 * @traffic_keys: what the stack takes for traffic keys of it: see tao_conn_init()
 *
 * Rust's Conn begins with it.
 */
struct tao_conn {
	struct tcp_ao_info	info;
	struct rhash_head	parked;
	struct sock		*sk;
	struct inet_timewait_sock *tw;
	struct list_head	attached;
	struct tao_peer		peer;
	seqcount_t		seq;
	const void		*md5_setter;
	__u64			rcv_shift;
	__u64			tw_rcv;
	TRAILING_OVERLAP(struct tcp_ao_key, key, traffic_keys,
		__u8		traffic_keys[TAO_TRAFFIC_KEYS];
	);
};

/**
 * struct tao_mkt - the part of a key that the index looks at
 * @link: node in the index
 * @criteria: whom the key matches, flattened; what the index hashes
 * @rcu: for the deferred free
 *
 * Rust's Mkt begins with it.
 */
#define TAO_CRITERIA_LEN	24
struct tao_mkt {
	struct rhlist_head	link;
	__u8			criteria[TAO_CRITERIA_LEN];
	struct rcu_head		rcu;
};

/**
 * struct tao_segment - a TCP segment
 * @skb: holds what follows the header; NULL: nothing follows
 * @th: header, @header_len readable bytes; written only where it is being sent
 * @header_len: bytes of header
 * @len: bytes of header and payload
 * @ao: to be signed: offset of the AO option's kind byte from @th
 * @family: of the packet: AF_INET or AF_INET6
 * @saddr: source address, 4 or 16 bytes
 * @daddr: destination address
 */
struct tao_segment {
	const struct sk_buff	*skb;
	__u8			*th;
	__u32			header_len;
	__u32			len;
	__u32			ao;
	__u16			family;
	const __u8		*saddr;
	const __u8		*daddr;
};

/* What is known of a connection when a segment for it arrives. */
enum tao_state {
	TAO_LISTEN,		/* nothing: a listener, and no request */
	TAO_REQUEST,		/* both ISNs: a listener's request */
	TAO_SYN_SENT,		/* the ISN of this end */
	TAO_PAIRED,		/* both ISNs: every later state */
	TAO_TIME_WAIT,		/* the same, and nothing may be allocated */
	TAO_CLOSED,
	TAO_UNPROTECTED,	/* any state of a connection that is not protected */
};

/* What becomes of a SYN for which the stack has no room, or which it would answer by a cookie. */
enum tao_crowded {
	TAO_CROWDED_STACK,	/* what the stack does */
	TAO_CROWDED_ADMIT,	/* it becomes a request all the same */
	TAO_CROWDED_DROP,
};

/* What a child is made of. */
enum tao_origin {
	TAO_OF_REQUEST,
	TAO_OF_COOKIE,		/* an ACK that shows a SYN cookie */
	TAO_OF_FAST_OPEN,	/* a SYN */
};

/* What becomes of a child. */
enum tao_child {
	TAO_CHILD_PROTECTED,
	TAO_CHILD_UNPROTECTED,
	TAO_CHILD_REFUSED,
};

/**
 * struct tao_numbers - sequence numbers of a connection, host byte order
 * @lisn: initial sequence number of this end
 * @risn: initial sequence number of the peer
 * @sne: sequence number extension of @seq
 * @seq: a recent sequence number of the direction in question
 */
struct tao_numbers {
	__u32	lisn;
	__u32	risn;
	__u32	sne;
	__u32	seq;
};

/**
 * struct tao_reply - what a reply built outside of a socket is signed with
 * @peer: receiver
 * @numbers: of the connection; @numbers.sne and .seq of the direction of the reply
 * @own: for the connection whose state it is, not for a listener's request
 * @preferred: for a request: KeyID that the peer asked for with its SYN
 *
 * The stack carries it as "the traffic key" from where the facts are known to where the header is.
 */
struct tao_reply {
	struct tao_peer		peer;
	struct tao_numbers	numbers;
	bool			own;
	__u8			preferred;
};

/* A prepared MAC key, and a MAC being computed. */
union tao_mac_key {
	struct hmac_sha1_key	sha1;
	struct hmac_sha256_key	sha256;
	struct aes_cmac_key	cmac;
};

union tao_mac_state {
	struct hmac_sha1_ctx	sha1;
	struct hmac_sha256_ctx	sha256;
	struct aes_cmac_ctx	cmac;
};

/* A setsockopt() or getsockopt() call that is, or may be, for us. */
struct tao_sockopt {
	struct sock	*sk;
	int		optname;
	__u32		optlen;
	sockptr_t	optval;
	sockptr_t	optlen_ptr;	/* get only */
};

/* tao_rust_setsockopt(), tao_rust_getsockopt(): the call is the kernel's. */
#define TAO_NOT_OURS	1

/* tao_rust_transmit(): the segment must not leave, and the socket is not told of it. */
#define TAO_NOT_TOLD_YET	1

/* lib.c: kernel functions that exist only inline, or that want a callback or a static structure */
void tao_mac_set_sha1(union tao_mac_key *key, const __u8 *raw, size_t len);
void tao_mac_set_sha256(union tao_mac_key *key, const __u8 *raw, size_t len);
void tao_mac_set_cmac(union tao_mac_key *key, const __u8 *raw, size_t len);
void tao_mac_init_sha1(union tao_mac_state *state, const union tao_mac_key *key);
void tao_mac_init_sha256(union tao_mac_state *state, const union tao_mac_key *key);
void tao_mac_init_cmac(union tao_mac_state *state, const union tao_mac_key *key);
void tao_mac_update_sha1(union tao_mac_state *state, const __u8 *data, size_t len);
void tao_mac_update_sha256(union tao_mac_state *state, const __u8 *data, size_t len);
void tao_mac_update_cmac(union tao_mac_state *state, const __u8 *data, size_t len);
void tao_mac_final_sha1(union tao_mac_state *state, __u8 *out);
void tao_mac_final_sha256(union tao_mac_state *state, __u8 *out);
void tao_mac_final_cmac(union tao_mac_state *state, __u8 *out);
bool tao_payload(const struct sk_buff *skb, __u32 header_len,
		 void (*each)(void *arg, const __u8 *data, size_t len), void *arg);
void tao_wipe(void *secret, size_t len);
__u64 tao_now(void);
__u64 tao_uptime(void);
void tao_call_rcu(struct rcu_head *head, rcu_callback_t func);

int tao_index_init(struct rhltable *index);
void tao_index_destroy(struct rhltable *index);
int tao_index_add(struct rhltable *index, struct tao_mkt *mkt);
void tao_index_replace(struct rhltable *index, struct tao_mkt *old, struct tao_mkt *mkt);
void tao_index_del(struct rhltable *index, struct tao_mkt *mkt);
struct tao_mkt *tao_index_first(struct rhltable *index, const __u8 *criteria);
struct tao_mkt *tao_index_next(struct tao_mkt *mkt);

bool tao_may_change_keys(const struct sock *sk);
int tao_copy_in(const struct tao_sockopt *call, void *to, size_t len);
int tao_get_len(struct tao_sockopt *call);
int tao_copy_out(const struct tao_sockopt *call, const void *from, size_t len);
bool tao_rest_is_zero(const struct tao_sockopt *call, size_t from, int *err);

/* conn.c */
struct tao_conn *tao_find(const struct sock *sk);
bool tao_has_native(const struct sock *sk);
void tao_conn_init(struct tao_conn *conn, struct sock *sk);
void tao_accept_icmp(struct tao_conn *conn, bool accept);
int tao_wake(void);
int tao_attach_begin(struct sock *sk, struct tao_conn *conn);
void tao_attach_end(struct sock *sk, struct tao_conn *conn);
void tao_attach_cancel(struct tao_conn *conn);
void tao_forget(const struct sock *sk);
int tao_park(struct sock *sk, struct tao_conn *conn);
struct tao_net *tao_net_of(const struct sock *sk);
__u8 tao_sk_state(const struct sock *sk);
__u16 tao_sk_family(const struct sock *sk);
bool tao_sk_in_repair(const struct sock *sk);
void tao_sk_lock(struct sock *sk);
void tao_sk_unlock(struct sock *sk);
void tao_repair_get(const struct sock *sk, const struct tao_conn *conn,
		    struct tcp_repair_authopt *repair);
void tao_repair_set(struct sock *sk, struct tao_conn *conn,
		    const struct tcp_repair_authopt *repair);
void tao_peer_of_sock(const struct sock *sk, struct tao_peer *peer);
void tao_count(const struct sock *sk, int mib);
bool tao_md5_wanted(const struct sock *sk, const struct tao_peer *peer, __u16 family);
int tao_conn_tables_init(void);
void tao_conn_tables_exit(void);

int tao_drain(void);

/* hook.c, net.c */
int tao_hooks_init(void);
void tao_hooks_exit(void);
int tao_net_init(void);
void tao_net_exit(void);
bool tao_enabled(void);

/* Rust: src/glue/hooks.rs */
struct tao_net;
struct tao_net *tao_rust_net_new(void);
void tao_rust_net_hide(struct tao_net *net);
void tao_rust_net_free(struct tao_net *net);
__u32 *tao_rust_net_max_keys(struct tao_net *net);
__u32 *tao_rust_net_key_overlap(struct tao_net *net);
__u32 *tao_rust_net_rollover_rule(struct tao_net *net);
__u32 *tao_rust_net_accept_tolerance(struct tao_net *net);
__s32 *tao_rust_net_no_key_grace(struct tao_net *net);
void tao_rust_net_choose_again(struct tao_net *net);
__u32 tao_rust_vrf_at(struct tao_net *net, __u32 ifindex);
int tao_rust_vrf_added(struct tao_net *net, __u32 ifindex, const char *name);
void tao_rust_vrf_gone(struct tao_net *net, __u32 ifindex);
int tao_rust_vrf_renamed(struct tao_net *net, __u32 ifindex, const char *name);
__u64 tao_rust_proc_position(struct tao_net *net, __u64 from);
size_t tao_rust_proc_line(struct tao_net *net, __u64 position, __u8 *line, size_t size);

int tao_rust_setsockopt(struct tao_sockopt *call);
int tao_rust_getsockopt(struct tao_sockopt *call);

struct tao_conn *tao_rust_conn_again(const struct tao_conn *old, struct sock *sk);
struct tao_conn *tao_rust_conn_accept(const struct tao_conn *listener, const struct sock *newsk,
				      const __u8 *signed_by);
void tao_rust_conn_free(struct tao_conn *conn);
int tao_rust_connect(struct tao_conn *conn, const struct sock *sk);
void tao_rust_not_connected(struct tao_conn *conn);
bool tao_rust_takes_md5(const struct tao_conn *conn);
bool tao_rust_keyed(const struct tao_conn *conn, const struct tao_peer *peer);
bool tao_rust_must_sign(const struct tao_conn *conn, const struct tao_peer *peer);
bool tao_rust_may_send(const struct tao_conn *conn, const struct tao_peer *peer);
enum tao_crowded tao_rust_crowded(const struct tao_conn *conn, const struct tao_peer *peer,
				  bool is_signed, __u32 requests, __u32 backlog);
enum tao_child tao_rust_child(const struct tao_conn *listener, const struct tao_peer *peer,
			      bool is_signed, enum tao_origin origin);

int tao_rust_transmit(struct tao_conn *conn, const struct tao_segment *seg,
		      const struct tao_numbers *numbers);
int tao_rust_reply(struct tao_conn *conn, const struct tao_segment *seg,
		   const struct tao_reply *reply);
enum skb_drop_reason tao_rust_receive(struct tao_conn *conn, const struct sock *sk,
				      const struct tao_segment *seg, const struct tao_peer *peer,
				      enum tao_state state, const struct tao_numbers *numbers);
__u32 tao_rust_find_ao(const __u8 *th, __u32 header_len);
__u32 tao_rust_sne(__u32 sne, __u32 basis, __u32 seq);

#endif /* TAO_SHIM_H */
