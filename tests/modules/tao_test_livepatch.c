// SPDX-License-Identifier: GPL-2.0
/* A live patch of one function, which does what the function does. */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <net/tcp.h>

/* Compare the function in net/ipv4/tcp_ao.c. */
static struct tcp_ao_key *patched_established_key(const struct sock *sk, struct tcp_ao_info *ao,
						  int sndid, int rcvid)
{
	struct tcp_ao_key *key;

	hlist_for_each_entry_rcu(key, &ao->head, node,
				 sk_fullsock(sk) && lockdep_sock_is_held(sk)) {
		if ((sndid >= 0 && key->sndid != sndid) || (rcvid >= 0 && key->rcvid != rcvid))
			continue;
		return key;
	}
	return NULL;
}

static struct klp_func functions[] = {
	{
		.old_name = "tcp_ao_established_key",
		.new_func = patched_established_key,
	},
	{}
};

static struct klp_object objects[] = {
	{ .funcs = functions }, /* without a name: the kernel itself */
	{}
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init livepatch_init(void)
{
	return klp_enable_patch(&patch);
}
module_init(livepatch_init);

static void __exit livepatch_exit(void)
{
}
module_exit(livepatch_exit);

MODULE_DESCRIPTION("A live patch, for tests");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
