/* SPDX-License-Identifier: GPL-2.0 */
/* Kernel functions that Rust cannot call as they are. */
#ifndef TAO_LIB_H
#define TAO_LIB_H

#include "tao.h"

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
int tao_index_add(struct rhltable *index, struct tao_entry *entry);
void tao_index_replace(struct rhltable *index, struct tao_entry *old, struct tao_entry *entry);
void tao_index_del(struct rhltable *index, struct tao_entry *entry);
struct tao_entry *tao_index_first(struct rhltable *index, const __u8 *criteria);
struct tao_entry *tao_index_next(struct tao_entry *entry);

bool tao_may_change_keys(const struct sock *sk);
int tao_copy_in(const struct tao_sockopt *call, void *to, size_t len);
int tao_get_len(struct tao_sockopt *call);
int tao_copy_out(const struct tao_sockopt *call, const void *from, size_t len);
bool tao_rest_is_zero(const struct tao_sockopt *call, size_t from, int *err);

#endif /* TAO_LIB_H */
