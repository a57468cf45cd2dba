// SPDX-License-Identifier: GPL-2.0
/*
 * Who answers for sockets that never asked. A policy is for them, too, and there are too many to give
 * each a state: those that listen when the policy is added, those that begin to while it is, and
 * those that inherit. So a namespace that has had a policy has one state that is no socket's and
 * stands in for all of its listeners without one. It asks nobody for anything of itself: only what a
 * policy requires is protected by it.
 */
#include <net/tcp.h>
#include "conn.h"
#include "net.h"
#include "rust.h"
#include "standin.h"

/*
 * What tao_stand_in() gives, unless no policy can be for a peer with the address @addr: so it is with most of what a
 * machine talks to, and this is all that they pay.
 */
struct tao_conn *tao_stand_in_for(const struct sock *sk, const void *addr, __u16 family)
{
	struct tao_conn *stand_in = tao_stand_in(sk);

	return stand_in && tao_rust_may_require(stand_in, addr, family) ? stand_in : NULL;
}

/* The same for the peer of @sk. */
struct tao_conn *tao_stand_in_for_sock(const struct sock *sk)
{
	return sk->sk_family == AF_INET6 ? tao_stand_in_for(sk, &sk->sk_v6_daddr, AF_INET6) :
					   tao_stand_in_for(sk, &sk->sk_daddr, AF_INET);
}

/*
 * The state that answers for @sk as a listener, and for its requests; @info is what it has at
 * ao_info. NULL: nobody does, or the kernel's own TCP-AO.
 */
struct tao_conn *tao_of_listener(const struct sock *sk, struct tcp_ao_info *info)
{
	return info ? tao_ours(info) : tao_stand_in(sk);
}

/* The namespace of @sk is about to get a policy. May sleep. */
int tao_make_stand_in(const struct sock *sk)
{
	return tao_net_make_stand_in(sock_net(sk));
}
