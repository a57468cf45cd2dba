// SPDX-License-Identifier: GPL-2.0
/* Takes the address of a function of the kernel, in data and in code: for scripts/check-ibt to find. */
#include <linux/module.h>
#include <net/tcp.h>

static int (*in_data)(struct sock *sk) = tcp_connect;

static int __init pointer_init(void)
{
	int (*in_code)(struct sock *sk) = tcp_connect;

	OPTIMIZER_HIDE_VAR(in_code);
	return in_code == READ_ONCE(in_data) ? 0 : tcp_connect(NULL);
}
module_init(pointer_init);

MODULE_DESCRIPTION("Takes the address of a function of the kernel, for tests");
MODULE_LICENSE("GPL");
