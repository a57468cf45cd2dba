// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel functions that Rust cannot call as they are: they are inline, or want a callback or a static
 * structure.
 */
#include <crypto/aes-cbc-macs.h>
#include <crypto/sha1.h>
#include <crypto/sha2.h>
#include <linux/highmem.h>
#include <linux/rhashtable.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/user_namespace.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include "lib.h"

/* ---- crypto ---- */

void tao_mac_set_sha1(union tao_mac_key *key, const __u8 *raw, size_t len)
{
	hmac_sha1_preparekey(&key->sha1, raw, len);
}

void tao_mac_set_sha256(union tao_mac_key *key, const __u8 *raw, size_t len)
{
	hmac_sha256_preparekey(&key->sha256, raw, len);
}

/* @len is 16, for which no error is possible. */
void tao_mac_set_cmac(union tao_mac_key *key, const __u8 *raw, size_t len)
{
	WARN_ON_ONCE(aes_cmac_preparekey(&key->cmac, raw, len));
}

void tao_mac_init_sha1(union tao_mac_state *state, const union tao_mac_key *key)
{
	hmac_sha1_init(&state->sha1, &key->sha1);
}

void tao_mac_init_sha256(union tao_mac_state *state, const union tao_mac_key *key)
{
	hmac_sha256_init(&state->sha256, &key->sha256);
}

void tao_mac_init_cmac(union tao_mac_state *state, const union tao_mac_key *key)
{
	aes_cmac_init(&state->cmac, &key->cmac);
}

void tao_mac_update_sha1(union tao_mac_state *state, const __u8 *data, size_t len)
{
	hmac_sha1_update(&state->sha1, data, len);
}

void tao_mac_update_sha256(union tao_mac_state *state, const __u8 *data, size_t len)
{
	hmac_sha256_update(&state->sha256, data, len);
}

void tao_mac_update_cmac(union tao_mac_state *state, const __u8 *data, size_t len)
{
	aes_cmac_update(&state->cmac, data, len);
}

void tao_mac_final_sha1(union tao_mac_state *state, __u8 *out)
{
	hmac_sha1_final(&state->sha1, out);
}

void tao_mac_final_sha256(union tao_mac_state *state, __u8 *out)
{
	hmac_sha256_final(&state->sha256, out);
}

void tao_mac_final_cmac(union tao_mac_state *state, __u8 *out)
{
	aes_cmac_final(&state->cmac, out);
}

/*
 * Calls @each for every piece of what follows the first @header_len bytes of @skb's data. False:
 * the CPU cannot read some of it, since it is in the memory of a device.
 */
bool tao_payload(const struct sk_buff *skb, __u32 header_len,
		 void (*each)(void *arg, const __u8 *data, size_t len), void *arg)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);
	struct sk_buff *frag_skb;

	if (unlikely(!skb_frags_readable(skb)))
		return false;
	if (skb_headlen(skb) > header_len)
		each(arg, skb->data + header_len, skb_headlen(skb) - header_len);
	for (unsigned int i = 0; i < shinfo->nr_frags; i++) {
		const skb_frag_t *frag = &shinfo->frags[i];
		u32 offset, len, done;
		struct page *page;

		skb_frag_foreach_page(frag, skb_frag_off(frag), skb_frag_size(frag), page, offset,
				      len, done) {
			const u8 *data = kmap_local_page(page);

			each(arg, data + offset, len);
			kunmap_local(data);
		}
	}
	skb_walk_frags(skb, frag_skb)
		if (!tao_payload(frag_skb, 0, each, arg))
			return false;
	return true;
}

void tao_wipe(void *secret, size_t len)
{
	memzero_explicit(secret, len);
}

/* ---- time and RCU ---- */

__u64 tao_now(void)
{
	return ktime_get_real_seconds();
}

__u64 tao_uptime(void)
{
	return ktime_get_ns();
}

void tao_call_rcu(struct rcu_head *head, rcu_callback_t func)
{
	call_rcu(head, func);
}

/* ---- index of entries ---- */

static const struct rhashtable_params tao_index_params = {
	.head_offset = offsetof(struct tao_entry, link),
	.key_offset = offsetof(struct tao_entry, criteria),
	.key_len = TAO_CRITERIA_LEN,
	.automatic_shrinking = true,
};

int tao_index_init(struct rhltable *index)
{
	return rhltable_init(index, &tao_index_params);
}

void tao_index_destroy(struct rhltable *index)
{
	rhltable_destroy(index);
}

int tao_index_add(struct rhltable *index, struct tao_entry *entry)
{
	return rhltable_insert(index, &entry->link, tao_index_params);
}

/*
 * Puts @entry where @old is, which has the same criteria: in one step, so that a reader who goes
 * through those with these criteria meets one of the two, wherever that is.
 */
void tao_index_replace(struct rhltable *index, struct tao_entry *old, struct tao_entry *entry)
{
	struct rhlist_head *at;

	/*
	 * There is one writer at a time. The table may be resized meanwhile, but not these lists.
	 */
	RCU_INIT_POINTER(entry->link.next, rcu_dereference_protected(old->link.next, true));
	rcu_read_lock();
	at = rhltable_lookup(index, old->criteria, tao_index_params);
	if (at == &old->link) {
		WARN_ON_ONCE(rhashtable_replace_fast(&index->ht, &old->link.rhead,
						     &entry->link.rhead, tao_index_params));
	} else {
		while (rcu_dereference(at->next) != &old->link)
			at = rcu_dereference(at->next);
		rcu_assign_pointer(at->next, &entry->link);
	}
	rcu_read_unlock();
}

void tao_index_del(struct rhltable *index, struct tao_entry *entry)
{
	rhltable_remove(index, &entry->link, tao_index_params);
}

/* The caller holds an RCU read lock, from here to the last of tao_index_next(). */
struct tao_entry *tao_index_first(struct rhltable *index, const __u8 *criteria)
{
	struct rhlist_head *list = rhltable_lookup(index, criteria, tao_index_params);

	return list ? container_of(list, struct tao_entry, link) : NULL;
}

struct tao_entry *tao_index_next(struct tao_entry *entry)
{
	struct rhlist_head *next = rcu_dereference(entry->link.next);

	return next ? container_of(next, struct tao_entry, link) : NULL;
}

/* ---- socket options ---- */

bool tao_may_change_keys(const struct sock *sk)
{
	return ns_capable(sock_net(sk)->user_ns, CAP_NET_ADMIN);
}

/* Whether the bytes of the option value from @from on are zero; *@err is an error, or 0. */
bool tao_rest_is_zero(const struct tao_sockopt *call, size_t from, int *err)
{
	int ret = call->optlen > from ?
		check_zeroed_sockptr(call->optval, from, call->optlen - from) : 1;

	*err = min(ret, 0);
	return ret > 0;
}

/* Copies the option value, filled up with zeroes. -EINVAL if it is longer and the rest not zero. */
int tao_copy_in(const struct tao_sockopt *call, void *to, size_t len)
{
	size_t given = min_t(size_t, call->optlen, len);
	int err;

	if (!tao_rest_is_zero(call, len, &err))
		return err ?: -EINVAL;
	memset(to + given, 0, len - given);
	return copy_from_sockptr(to, call->optval, given) ? -EFAULT : 0;
}

/* The length that getsockopt()'s caller offers. */
int tao_get_len(struct tao_sockopt *call)
{
	int len;

	if (copy_from_sockptr(&len, call->optlen_ptr, sizeof(len)))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	call->optlen = len;
	return 0;
}

/* Answers getsockopt(), truncated to what the caller offers. */
int tao_copy_out(const struct tao_sockopt *call, const void *from, size_t len)
{
	int given = min_t(size_t, call->optlen, len);

	if (copy_to_sockptr(call->optlen_ptr, &given, sizeof(given)) ||
	    copy_to_sockptr(call->optval, from, given))
		return -EFAULT;
	return 0;
}
