// SPDX-License-Identifier: GPL-2.0
/*
 * The seam: functions of the stack's own TCP-AO that are replaced for sockets that carry our state.
 *
 * Each replacement has the prototype of the function in its name (net/ipv4/tcp_ao.c and others of
 * the kernel's source), collects what Rust needs to know, and does what Rust says. Each step of a
 * connection's life is a file:
 *
 *	open.c		tcp_connect, inet_csk_listen_start; md5_lookup, ao_lookup
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
