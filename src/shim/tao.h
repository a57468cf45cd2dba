/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the C shims and the Rust side tell each other. C collects facts (where the header is, which
 * state the socket is in) and does what Rust says; every decision is Rust's. The functions of Rust
 * that C calls are in rust.h, those of C that Rust calls in what bindings.h includes.
 *
 * Words that code and comments use:
 *
 *	attach		A state is attached while tcp_sock.ao_info of its socket, or of the
 *			TIME-WAIT socket, points to it. To the stack, every segment of such a
 *			socket carries AO.
 *	park		A state is parked while the connection of its socket is not protected. The
 *			stack sees nothing of it. It is in a table, by the address of the socket.
 *	protect		A protected connection signs what it sends, and takes nothing unsigned. Its
 *			SYN decides that, once and for all.
 *	share		A socket that goes to TIME-WAIT shares its state with its TIME-WAIT socket.
 *			Each of the two has a reference.
 *	leave		A socket that goes leaves its state, and so does a TIME-WAIT socket. The
 *			state ends when nobody has a reference any more.
 *	pin		An attached state pins the module, which is not unloaded before the memory
 *			of the state is freed.
 *	take over	A socket is taken over when its table of functions becomes a copy with
 *			functions of ours in it.
 *	hand back	A socket is handed back when it gets the table of the kernel's again.
 *	wake		The first socket of the machine that asks for authentication wakes the
 *			module: the stack begins to look at ao_info, and the hooks at sockets.
 *	drain		A drain ends whatever has an attached state, for good, so that nothing pins
 *			the module.
 *	ask		A socket has asked if its program has: for the connections that keys match
 *			to be protected. A policy protects connections of the others, too.
 *	stand in	One state of a namespace that has had a policy stands in for its listeners
 *			without any.
 *	hold		A namespace with a policy that requires protection holds the module.
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

/*
 * Bytes of a MAC: Rust's wire::MAC_LEN. With the option's header it fills whole words of 32 bits.
 */
#define TAO_MAC_LEN	12
static_assert((sizeof(struct tcp_ao_hdr) + TAO_MAC_LEN) % 4 == 0);

struct net;
struct sk_buff;
struct inet_timewait_sock;
struct sock;
struct tao_net;

/**
 * struct tao_side - what keys look at, and a segment does not say
 * @vrf: the VRF of the connection, as keys name it, for good
 * @family: of the socket. An AF_INET6 socket sees IPv4 peers as ::ffff:a.b.c.d.
 */
struct tao_side {
	__u32	vrf;
	__u16	family;
};

/**
 * struct tao_ends - a connection that keys may match, where there is no segment that says it
 * @side: what no segment would say, either
 * @remote_port: host byte order; 0: not known
 * @local_port: the same
 * @remote: address of the peer, in the first 4 bytes if the socket is an AF_INET one
 * @local: address of this end; the unspecified one: not known
 */
struct tao_ends {
	struct tao_side	side;
	__u16		remote_port;
	__u16		local_port;
	__u8		remote[16];
	__u8		local[16];
};

/* Where a namespace has the values of its sysctls, by their names without tcp_authopt_. */
struct tao_net_values {
	__u32	*key_overlap;
	__u32	*max_keys;
	__u32	*rollover_rule;
	__u32	*accept_tolerance;
	__s32	*no_key_grace;
};

/* The stack allocates this much for "the traffic key" of a request; struct tao_reply goes there. */
#define TAO_REPLY_ROOM		32

/*
 * Of each key the stack has two traffic keys, one for each direction: the second is this far behind
 * the first, and for the placeholder's algorithm it looks at the first bytes of either.
 */
#define TAO_TRAFFIC_KEYS	(TAO_REPLY_ROOM + SHA1_DIGEST_SIZE)

/**
 * struct tao_conn - the part of a socket's state that C, and the stack itself, look at
 * @info: what tcp_sock.ao_info points to. First, so that the pointer finds all.
 * @parked: node in the table of sockets whose connection is not protected
 * @sk: the socket, key of @parked; NULL once the socket has left the state
 * @tw: its TIME-WAIT socket, while that has the state
 * @pin: node in the list of states that pin the module
 * @side: of its connection, if that is protected: the VRF is the one that it began in. Written
 *	under the socket lock; others read it by tao_side_of_conn().
 * @seq: odd while what TCP_REPAIR_AUTHOPT sets is written
 * @md5_setter: the task that is in TCP_MD5SIG of the socket, if it may be
 * @rcv_shift: what the place in the peer's stream is ahead of what its ISN and
 *	tcp_sock.bytes_received say: not 0 only for a connection that was restored
 *	(TCP_REPAIR_AUTHOPT)
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
	struct list_head	pin;
	struct tao_side		side;
	seqcount_t		seq;
	const void		*md5_setter;
	__u64			rcv_shift;
	__u64			tw_rcv;
	TRAILING_OVERLAP(struct tcp_ao_key, key, traffic_keys,
		__u8		traffic_keys[TAO_TRAFFIC_KEYS];
	);
};

/* What the stack has as a tcp_ao_info, or finds behind it, is ours. */
static_assert(offsetof(struct tao_conn, info) == 0);
static_assert(offsetof(struct tao_conn, traffic_keys) ==
	      offsetof(struct tao_conn, key) + offsetof(struct tcp_ao_key, traffic_keys));

/**
 * struct tao_entry - the part of a key or policy that the index looks at
 * @link: node in the index
 * @criteria: which connections it matches, flattened; what the index hashes
 *
 * Rust's Mkt and Policy begin with it.
 */
#define TAO_CRITERIA_LEN	44
struct tao_entry {
	struct rhlist_head	link;
	__u8			criteria[TAO_CRITERIA_LEN];
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
 * @side: of the connection that it is for
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
	struct tao_side		side;
};

/* What is known of a connection when a segment for it arrives. */
enum tao_context {
	TAO_LISTEN,		/* nothing: a listener, and no request */
	TAO_REQUEST,		/* both ISNs: a listener's request */
	TAO_SYN_SENT,		/* the ISN of this end */
	TAO_PAIRED,		/* both ISNs: every later state */
	TAO_TIME_WAIT,		/* the same, and nothing may be allocated */
	TAO_CLOSED,
	TAO_UNPROTECTED,	/* any state of a connection that is not protected */
};

/* A file of a namespace's in /proc/net. */
enum tao_file {
	TAO_FILE_KEYS,		/* tcp_authopt */
	TAO_FILE_ENTRIES,	/* tcp_authopt_entries */
	TAO_FILE_COUNTERS,	/* tcp_authopt_counters */
};

/* What becomes of a SYN. */
enum tao_syn {
	TAO_SYN_STACK,		/* what the stack does */
	TAO_SYN_ADMIT,		/* it becomes a request, though there are too many */
	TAO_SYN_DROP,
};

/* What a signed SYN is answered with. */
enum tao_answer {
	TAO_ANSWER_NONE,
	TAO_ANSWER_UNSIGNED,
	TAO_ANSWER_SIGNED,
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
 * @numbers: of the connection. With @own, @numbers.sne is that of snd_una until tao_hash_hdr() has
 *	that of the reply; @numbers.seq is not used.
 * @own: for the connection whose state it is, not for a listener's request
 * @side: of the connection, until it is that of the segment
 * @preferred: for a request: KeyID that the peer asked for with its SYN
 *
 * The stack carries it as "the traffic key" from where the facts are known to where the header is.
 */
struct tao_reply {
	struct tao_numbers	numbers;
	struct tao_side		side;
	bool			own;
	__u8			preferred;
};
static_assert(sizeof(struct tao_reply) <= TAO_REPLY_ROOM);

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

#endif /* TAO_SHIM_H */
