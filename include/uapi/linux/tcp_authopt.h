/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * TCP Authentication Option (RFC 5925): keys per network namespace, matched by peer.
 *
 * Options at level IPPROTO_TCP, while the sysctl net.ipv4.tcp_authopt is 1. Integers are in host
 * byte order. A buffer shorter than a structure is filled up with zeroes; of a longer one the rest
 * has to be zero (EINVAL).
 */
#ifndef _UAPI_LINUX_TCP_AUTHOPT_H
#define _UAPI_LINUX_TCP_AUTHOPT_H

#include <linux/socket.h>
#include <linux/types.h>

/* The kernel's own TCP-AO uses 38 to 42 too: see Documentation/abi.rst for who gets a call. */
#define TCP_AUTHOPT		38	/* struct tcp_authopt, set and get */
#define TCP_AUTHOPT_KEY		39	/* struct tcp_authopt_key, set only */
#define TCP_REPAIR_AUTHOPT	40	/* struct tcp_repair_authopt, set and get */

/**
 * enum tcp_authopt_flag - flags of struct tcp_authopt
 * @TCP_AUTHOPT_FLAG_LOCK_KEYID: sign with the key whose send_id is &tcp_authopt.send_keyid, as long
 *	as there is such a key and it may be used, and do not follow the peer's RNextKeyID
 * @TCP_AUTHOPT_FLAG_LOCK_RNEXTKEYID: ask the peer for &tcp_authopt.send_rnextkeyid
 * @TCP_AUTHOPT_FLAG_REJECT_UNEXPECTED: drop signed segments of peers without a key
 * @TCP_AUTHOPT_FLAG_ACTIVE: get: the connection is protected. Set: under TCP_REPAIR,
 *	&tcp_authopt.recv_keyid and &tcp_authopt.recv_rnextkeyid are to be restored; else ignored.
 * @TCP_AUTHOPT_FLAG_ACCEPT_ICMP: heed the ICMP errors that a protected connection ignores once it is
 *	established: ICMPv4 type 3 codes 2 to 4, ICMPv6 type 1 codes 1 and 4 (RFC 5925 7.8)
 */
enum tcp_authopt_flag {
	TCP_AUTHOPT_FLAG_LOCK_KEYID		= 1 << 0,
	TCP_AUTHOPT_FLAG_LOCK_RNEXTKEYID	= 1 << 1,
	TCP_AUTHOPT_FLAG_REJECT_UNEXPECTED	= 1 << 2,
	TCP_AUTHOPT_FLAG_ACTIVE			= 1 << 3,
	TCP_AUTHOPT_FLAG_ACCEPT_ICMP		= 1 << 16,
};

/**
 * struct tcp_authopt - what a socket wants (set), what its connection does (get)
 * @flags: &enum tcp_authopt_flag
 * @send_keyid: set: the key to sign with, if %TCP_AUTHOPT_FLAG_LOCK_KEYID; get: KeyID of the last
 *	segment sent
 * @send_rnextkeyid: set: the RNextKeyID to send, if %TCP_AUTHOPT_FLAG_LOCK_RNEXTKEYID; get:
 *	RNextKeyID of the last segment sent
 * @recv_keyid: get: KeyID of the last valid segment received
 * @recv_rnextkeyid: get: RNextKeyID of the last valid segment received
 *
 * Set it before connect() or listen(); whether a connection is protected is decided by its SYN. All
 * zeros are set, too, by adding a key on a socket that has set nothing yet.
 */
struct tcp_authopt {
	__u32	flags;
	__u8	send_keyid;
	__u8	send_rnextkeyid;
	__u8	recv_keyid;
	__u8	recv_rnextkeyid;
};

/**
 * enum tcp_authopt_key_flag - flags of struct tcp_authopt_key
 * @TCP_AUTHOPT_KEY_DEL: delete the key with this identity; ENOENT where there is none
 * @TCP_AUTHOPT_KEY_EXCLUDE_OPTS: of the TCP options the MAC covers the AO option only
 * @TCP_AUTHOPT_KEY_ADDR_BIND: only for the peer &tcp_authopt_key.addr
 * @TCP_AUTHOPT_KEY_IFINDEX: only in the VRF &tcp_authopt_key.ifindex
 * @TCP_AUTHOPT_KEY_NOSEND: never sign with this key
 * @TCP_AUTHOPT_KEY_NORECV: never accept segments signed with this key
 * @TCP_AUTHOPT_KEY_PREFIXLEN: &tcp_authopt_key.addr is a prefix of this length
 * @TCP_AUTHOPT_KEY_SEND_LIFETIME_BEGIN: &tcp_authopt_key.send_lifetime_begin is set
 * @TCP_AUTHOPT_KEY_SEND_LIFETIME_END: &tcp_authopt_key.send_lifetime_end is set
 * @TCP_AUTHOPT_KEY_RECV_LIFETIME_BEGIN: &tcp_authopt_key.recv_lifetime_begin is set
 * @TCP_AUTHOPT_KEY_RECV_LIFETIME_END: &tcp_authopt_key.recv_lifetime_end is set
 * @TCP_AUTHOPT_KEY_REQUIRE: not a key, but a policy: connections that match have to be protected,
 *	whatever their sockets asked
 * @TCP_AUTHOPT_KEY_EXEMPT: not a key, but a policy: connections that match need not be protected,
 *	unless their sockets ask
 * @TCP_AUTHOPT_KEY_STRICT: with %TCP_AUTHOPT_KEY_REQUIRE: the kernel's own TCP-AO does not do
 * @TCP_AUTHOPT_KEY_ACCEPT_ICMP: with %TCP_AUTHOPT_KEY_REQUIRE: connections heed ICMP errors, as with
 *	%TCP_AUTHOPT_FLAG_ACCEPT_ICMP
 * @TCP_AUTHOPT_KEY_LOCAL_ADDR: only for connections of the address &tcp_authopt_key.local of this
 *	end
 * @TCP_AUTHOPT_KEY_LOCAL_PREFIXLEN: &tcp_authopt_key.local is a prefix of this length
 * @TCP_AUTHOPT_KEY_SERVICE_PORT: only for connections of which either end has the port
 *	&tcp_authopt_key.service_port
 * @TCP_AUTHOPT_KEY_VRF_NAME: only in the VRF &tcp_authopt_key.vrf; not with
 *	%TCP_AUTHOPT_KEY_IFINDEX
 *
 * A field whose flag is not set is ignored.
 */
enum tcp_authopt_key_flag {
	TCP_AUTHOPT_KEY_DEL			= 1 << 0,
	TCP_AUTHOPT_KEY_EXCLUDE_OPTS		= 1 << 1,
	TCP_AUTHOPT_KEY_ADDR_BIND		= 1 << 2,
	TCP_AUTHOPT_KEY_IFINDEX			= 1 << 3,
	TCP_AUTHOPT_KEY_NOSEND			= 1 << 4,
	TCP_AUTHOPT_KEY_NORECV			= 1 << 5,
	TCP_AUTHOPT_KEY_PREFIXLEN		= 1 << 6,
	TCP_AUTHOPT_KEY_SEND_LIFETIME_BEGIN	= 1 << 7,
	TCP_AUTHOPT_KEY_SEND_LIFETIME_END	= 1 << 8,
	TCP_AUTHOPT_KEY_RECV_LIFETIME_BEGIN	= 1 << 9,
	TCP_AUTHOPT_KEY_RECV_LIFETIME_END	= 1 << 10,
	TCP_AUTHOPT_KEY_REQUIRE			= 1 << 16,
	TCP_AUTHOPT_KEY_EXEMPT			= 1 << 17,
	TCP_AUTHOPT_KEY_STRICT			= 1 << 18,
	TCP_AUTHOPT_KEY_ACCEPT_ICMP		= 1 << 19,
	TCP_AUTHOPT_KEY_LOCAL_ADDR		= 1 << 20,
	TCP_AUTHOPT_KEY_LOCAL_PREFIXLEN		= 1 << 21,
	TCP_AUTHOPT_KEY_SERVICE_PORT		= 1 << 22,
	TCP_AUTHOPT_KEY_VRF_NAME		= 1 << 23,
};

/**
 * enum tcp_authopt_alg - MAC and key derivation function
 * @TCP_AUTHOPT_ALG_HMAC_SHA_1_96: RFC 5926 3.2.1
 * @TCP_AUTHOPT_ALG_AES_128_CMAC_96: RFC 5926 3.2.2
 * @TCP_AUTHOPT_ALG_HMAC_SHA_256_96: as the kernel's own TCP-AO does hmac(sha256)
 */
enum tcp_authopt_alg {
	TCP_AUTHOPT_ALG_HMAC_SHA_1_96		= 1,
	TCP_AUTHOPT_ALG_AES_128_CMAC_96		= 2,
	TCP_AUTHOPT_ALG_HMAC_SHA_256_96		= 3,
};

/* Longest master key in bytes. */
#define TCP_AUTHOPT_MAXKEYLEN	80

/* Bytes of the name of a VRF, a final zero included. */
#define TCP_AUTHOPT_VRFNAMELEN	16

/**
 * struct tcp_authopt_key - a Master Key Tuple (MKT), or a policy, of the socket's network namespace
 * @flags: &enum tcp_authopt_key_flag
 * @send_id: KeyID in segments sent
 * @recv_id: KeyID in segments received
 * @alg: &enum tcp_authopt_alg
 * @keylen: bytes of @key in use
 * @key: master key
 * @addr: peer, a sockaddr_in or sockaddr_in6; its port is ignored. ::ffff:a.b.c.d is a.b.c.d
 * @ifindex: L3 master device; 0: only outside VRFs
 * @prefixlen: bits of @addr that count
 * @send_lifetime_begin: first second of CLOCK_REALTIME in which to sign with the key
 * @send_lifetime_end: last such second
 * @recv_lifetime_begin: first second in which to accept the key
 * @recv_lifetime_end: last such second
 * @local: address of this end, in the family of @addr: 4 bytes of IPv4, or 16
 * @local_prefixlen: bits of @local that count
 * @service_port: a port that one end or the other has
 * @reserved1: zero
 * @vrf: name of an L3 master device, which need not exist yet, filled up with zeroes
 * @reserved2: zero
 *
 * A key is identified by its ids, addresses, prefix lengths, port and VRF. Adding one with the same
 * identity replaces it. Needs CAP_NET_ADMIN in the network namespace. What is behind
 * @recv_lifetime_end is not in the structure of the series, which has 256 bytes.
 *
 * A policy has no ids, algorithm, key and lifetimes: these are zero. It is identified by addresses,
 * prefix lengths, port and VRF.
 */
struct tcp_authopt_key {
	__u32	flags;
	__u8	send_id;
	__u8	recv_id;
	__u8	alg;
	__u8	keylen;
	__u8	key[TCP_AUTHOPT_MAXKEYLEN];
	struct __kernel_sockaddr_storage addr;
	__s32	ifindex;
	__s32	prefixlen;
	__u64	send_lifetime_begin;
	__u64	send_lifetime_end;
	__u64	recv_lifetime_begin;
	__u64	recv_lifetime_end;
	__u8	local[16];
	__s32	local_prefixlen;
	__u16	service_port;
	__u16	reserved1;
	char	vrf[TCP_AUTHOPT_VRFNAMELEN];
	__u8	reserved2[24];
};

/**
 * struct tcp_repair_authopt - state of a protected connection under TCP_REPAIR
 * @src_isn: initial sequence number of this end
 * @dst_isn: initial sequence number of the peer
 * @snd_sne: sequence number extension of @snd_seq
 * @rcv_sne: sequence number extension of @rcv_seq
 * @snd_seq: a recent sequence number of this end; get: snd_nxt
 * @rcv_seq: a recent sequence number of the peer; get: rcv_nxt
 *
 * A protected socket that was connected under TCP_REPAIR sends nothing before this is set. The order
 * of calls: Documentation/abi.rst, Checkpoint and restore.
 */
struct tcp_repair_authopt {
	__u32	src_isn;
	__u32	dst_isn;
	__u32	snd_sne;
	__u32	rcv_sne;
	__u32	snd_seq;
	__u32	rcv_seq;
};

#endif /* _UAPI_LINUX_TCP_AUTHOPT_H */
