// SPDX-License-Identifier: GPL-2.0
/*
 * The seam: functions of the stack's own TCP-AO that are replaced for sockets that carry our state.
 *
 * Each replacement has the prototype of the function in its name (net/ipv4/tcp_ao.c and others of
 * the kernel's source), collects what Rust needs to know, and does what Rust says. Each step of a
 * connection's life is a file:
 *
 *	open.c		tcp_connect, tcp_fastopen_defer_connect, tcp_finish_connect,
 *			tcp_send_synack, inet_csk_listen_start; md5_lookup, ao_lookup, and for
 *			listeners without state tcp_v{4,6}_ao_lookup
 *	accept.c	tcp_conn_request, tcp_make_synack, tcp_v{4,6}_ao_synack_hash,
 *			tcp_v{4,6}_ao_lookup_rsk, tcp_ao_copy_all_matching
 *	transmit.c	calc_ao_hash, ao_calc_key_sk
 *	receive.c	tcp_inbound_ao_hash (signed segments), tcp_ao_do_lookup (unsigned ones),
 *			__tcp_md5_do_lookup
 *	reply.c		tcp_ao_prepare_reset, tcp_v{4,6}_ao_calc_key_rsk,
 *			tcp_ao_established_key, tcp_ao_hash_hdr
 *	timewait.c	tcp_ao_time_wait, tcp_timewait_state_process; tcp_ao_destroy_sock
 *	sockopt.c	tcp_setsockopt, tcp_getsockopt; md5_parse, ao_parse
 *
 * Left to the stack, since its own code does right with our state: tcp_ao_connect_init (ISN of this
 * end), tcp_ao_finish_connect and tcp_rcv_synsent_state_process (ISN of the peer), the SNE on
 * snd_una, tcp_ao_ignore_icmp.
 *
 * Each entry from the stack, callback or replacement, loads ao_info once and hands the result on:
 * in softirq it may be another at the next load, or none. Only where the socket is locked it stays
 * what it is. scripts/check-loads finds a second load.
 */
#include <net/tcp.h>
#include "accept.h"
#include "hook.h"
#include "open.h"
#include "receive.h"
#include "reply.h"
#include "seam.h"
#include "sockopt.h"
#include "timewait.h"
#include "transmit.h"

const struct tcp_sock_af_ops tao_af_ops = {
	.md5_lookup	= tao_md5_lookup,
	.md5_parse	= tao_md5_parse,
	.ao_parse	= tao_ao_parse,
	.ao_lookup	= tao_ao_lookup,
	.ao_calc_key_sk	= tao_calc_key_sk,
	.calc_ao_hash	= tao_calc_ao_hash,
};

/* ---- tables ---- */

/*
 * What connections meet a few times at most, and socket options. A replacement that sleeps has the
 * module held by its hook: a state that is parked does not hold it.
 */
static struct tao_group tao_seldom, tao_sockopts = { .call = tao_call_sockopt };

static_assert(__same_type(tcp_finish_connect, tcp_reset));
/* Whoever calls the former does not look at what it returns. */
static_assert(__same_type(tcp_send_synack, int (struct sock *)));
static_assert(__same_type(tcp_done, void (struct sock *)));

static struct tao_hook tao_hooks[] = {
	TAO_HOOK(tcp_connect, tao_connect,
		 .ours = tao_ours_connect, .sleeps = true, .group = &tao_seldom),
	TAO_HOOK(tcp_fastopen_defer_connect, tao_do_not_defer,
		 .ours = tao_ours_defer, .group = &tao_seldom),
	TAO_HOOK_TO(tcp_finish_connect, tcp_reset,
		    .before = tao_before_finish_connect, .group = &tao_seldom),
	TAO_HOOK_TO(tcp_send_synack, tcp_done,
		    .before = tao_before_send_synack, .group = &tao_seldom),
	TAO_HOOK(inet_csk_listen_start, tao_refuse_listen,
		 .before = tao_before_listen, .group = &tao_seldom),
	TAO_HOOK(tcp_conn_request, tao_drop_syn,
		 .before = tao_before_conn_request, .group = &tao_seldom),
	TAO_HOOK(tcp_make_synack, tao_make_no_synack,
		 .before = tao_before_make_synack, .group = &tao_seldom),
	TAO_HOOK(tcp_v4_ao_synack_hash, tao_synack_hash,
		 .ours = tao_ours_synack_hash, .group = &tao_seldom),
	TAO_HOOK(tcp_v6_ao_synack_hash, tao_synack_hash,
		 .ours = tao_ours_synack_hash, .group = &tao_seldom),
	TAO_HOOK(tcp_v4_ao_lookup, tao_ao_lookup,
		 .ours = tao_ours_ao_lookup, .group = &tao_seldom),
	TAO_HOOK(tcp_v6_ao_lookup, tao_ao_lookup,
		 .ours = tao_ours_ao_lookup, .group = &tao_seldom),
	TAO_HOOK(tcp_v4_ao_lookup_rsk, tao_lookup_rsk,
		 .ours = tao_ours_lookup_rsk, .group = &tao_seldom),
	TAO_HOOK(tcp_v6_ao_lookup_rsk, tao_lookup_rsk,
		 .ours = tao_ours_lookup_rsk, .group = &tao_seldom),
	TAO_HOOK(tcp_ao_copy_all_matching, tao_copy_all_matching,
		 .ours = tao_ours_copy_all, .group = &tao_seldom),
	TAO_HOOK(tcp_ao_prepare_reset, tao_prepare_reset,
		 .ours = tao_ours_prepare_reset, .group = &tao_seldom),
	TAO_HOOK(tcp_v4_ao_calc_key_rsk, tao_calc_key_rsk,
		 .ours = tao_ours_calc_key_rsk, .group = &tao_seldom),
	TAO_HOOK(tcp_v6_ao_calc_key_rsk, tao_calc_key_rsk,
		 .ours = tao_ours_calc_key_rsk, .group = &tao_seldom),
	TAO_HOOK(tcp_ao_established_key, tao_established_key,
		 .ours = tao_ours_established_key, .group = &tao_seldom),
	TAO_HOOK(tcp_ao_hash_hdr, tao_hash_hdr, .ours = tao_ours_hash_hdr, .group = &tao_seldom),
	TAO_HOOK(tcp_ao_time_wait, tao_time_wait, .ours = tao_ours_time_wait, .group = &tao_seldom),
	TAO_HOOK(tcp_ao_destroy_sock, tao_destroy_sock,
		 .before = tao_before_destroy, .group = &tao_seldom),

	TAO_HOOK(tcp_ao_do_lookup, tao_do_lookup, .ours = tao_ours_do_lookup),
	TAO_HOOK(__tcp_md5_do_lookup, tao_md5_do_lookup, .ours = tao_ours_md5_do_lookup),
	TAO_HOOK(tcp_timewait_state_process, tao_timewait_drop, .before = tao_before_timewait),
	TAO_HOOK(tcp_inbound_ao_hash, tao_inbound_ao_hash,
		 .ours = tao_ours_inbound, .call = tao_call_inbound),

	/* Last, so that no socket has state before all others are attached. */
	TAO_HOOK(tcp_setsockopt, tao_setsockopt,
		 .ours = tao_ours_sockopt, .sleeps = true, .group = &tao_sockopts),
	TAO_HOOK(tcp_getsockopt, tao_getsockopt,
		 .ours = tao_ours_sockopt, .sleeps = true, .group = &tao_sockopts),
};

int tao_seam_attach(void)
{
	return tao_hooks_attach(tao_hooks, ARRAY_SIZE(tao_hooks));
}

/* When it returns nobody is in a function of the seam. */
void tao_seam_detach(void)
{
	tao_hooks_detach();
}
