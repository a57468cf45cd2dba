/* SPDX-License-Identifier: GPL-2.0 */
/* What C asks of Rust: src/glue/entry. */
#ifndef TAO_RUST_H
#define TAO_RUST_H

#include "tao.h"

struct tao_net *tao_rust_net_new(void);
void tao_rust_net_hide(struct tao_net *net);
void tao_rust_net_free(struct tao_net *net);
struct tao_net_values tao_rust_net_values(struct tao_net *net);
void tao_rust_net_choose_again(struct tao_net *net);
__u32 tao_rust_vrf_at(struct tao_net *net, __u32 ifindex);
int tao_rust_vrf_added(struct tao_net *net, __u32 ifindex, const char *name);
void tao_rust_vrf_gone(struct tao_net *net, __u32 ifindex);
int tao_rust_vrf_renamed(struct tao_net *net, __u32 ifindex, const char *name);
__u64 tao_rust_proc_position(struct tao_net *net, enum tao_file file, __u64 from);
size_t tao_rust_proc_line(struct tao_net *net, enum tao_file file, __u64 position, __u8 *line,
			  size_t size);

int tao_rust_setsockopt(struct tao_sockopt *call);
int tao_rust_getsockopt(struct tao_sockopt *call);

struct tao_conn *tao_rust_stand_in(struct tao_net *net);
struct tao_conn *tao_rust_conn_for(struct sock *sk, bool may_sleep);
bool tao_rust_asked(const struct tao_conn *conn);
bool tao_rust_may_require(const struct tao_conn *stand_in, const __u8 *addr, __u16 family);
bool tao_rust_required(const struct tao_conn *stand_in, const struct tao_ends *ends);
bool tao_rust_refuses_answer(const struct tao_conn *stand_in, const struct sock *sk,
			     const struct tao_ends *ends);
bool tao_rust_refuses_native(const struct tao_conn *stand_in, const struct sock *sk,
			     const struct tao_ends *ends, bool is_signed);
struct tao_conn *tao_rust_conn_again(const struct tao_conn *old, struct sock *sk);
struct tao_conn *tao_rust_conn_accept(const struct tao_conn *listener, const struct sock *newsk,
				      const __u8 *signed_by);
void tao_rust_conn_free(struct tao_conn *conn);
/* An error; 0: the connection is not to be protected; 1: it is. */
int tao_rust_connect(struct tao_conn *conn, const struct sock *sk, bool speaks_mptcp);
void tao_rust_not_connected(struct tao_conn *conn);
bool tao_rust_takes_md5(const struct tao_conn *conn);
bool tao_rust_must_sign(const struct tao_conn *conn, const struct tao_ends *ends);
bool tao_rust_may_send(const struct tao_conn *conn, const struct tao_ends *ends);
enum tao_syn tao_rust_syn(const struct tao_conn *conn, const struct sock *sk,
			  const struct tao_ends *ends, bool is_signed, bool joins_mptcp,
			  bool is_crowded, __u32 requests, __u32 backlog);
enum tao_answer tao_rust_answer(const struct tao_conn *conn, const struct tao_ends *ends,
				bool cookie, bool first);
enum tao_child tao_rust_child(const struct tao_conn *listener, const struct sock *newsk,
			      bool is_signed, enum tao_origin origin);

int tao_rust_transmit(struct tao_conn *conn, const struct tao_segment *seg,
		      const struct tao_numbers *numbers);
int tao_rust_reply(struct tao_conn *conn, const struct tao_segment *seg,
		   const struct tao_reply *reply);
enum skb_drop_reason tao_rust_receive(struct tao_conn *conn, const struct sock *sk,
				      const struct tao_segment *seg, int l3index,
				      enum tao_context context, const struct tao_numbers *numbers);
__u32 tao_rust_find_ao(const __u8 *th, __u32 header_len);
bool tao_rust_carries_ao(const __u8 *th, __u32 header_len);
bool tao_rust_joins_mptcp(const __u8 *th, __u32 header_len);
__u32 tao_rust_sne(__u32 sne, __u32 basis, __u32 seq);

#endif /* TAO_RUST_H */
