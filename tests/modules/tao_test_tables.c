// SPDX-License-Identifier: GPL-2.0
/*
 * Gives sockets tables of functions of their own, as other protocols over TCP do. What is written
 * to the parameter is a file descriptor of the writer's. The tables go with the module.
 */
#include <linux/module.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <net/inet_connection_sock.h>

static struct inet_connection_sock_af_ops *tables[16];
static unsigned int count;

static int tables_set(const char *value, const struct kernel_param *param)
{
	struct inet_connection_sock_af_ops *table;
	struct inet_connection_sock *icsk;
	struct socket *sock;
	int fd, err;

	err = kstrtoint(value, 0, &fd);
	if (err)
		return err;
	if (count == ARRAY_SIZE(tables))
		return -ENOSPC;
	sock = sockfd_lookup(fd, &err);
	if (!sock)
		return err;
	lock_sock(sock->sk);
	icsk = inet_csk(sock->sk);
	table = kmemdup(icsk->icsk_af_ops, sizeof(*table), GFP_KERNEL);
	if (table) {
		tables[count++] = table;
		smp_store_release(&icsk->icsk_af_ops, table);
	}
	release_sock(sock->sk);
	sockfd_put(sock);
	return table ? 0 : -ENOMEM;
}

static const struct kernel_param_ops tables_ops = { .set = tables_set };
module_param_cb(socket, &tables_ops, NULL, 0200);
MODULE_PARM_DESC(socket, "a TCP socket that gets a table of its own");

static int __init tables_init(void)
{
	return 0;
}
module_init(tables_init);

static void __exit tables_exit(void)
{
	while (count)
		kfree(tables[--count]);
}
module_exit(tables_exit);

MODULE_DESCRIPTION("Gives sockets tables of functions of their own, for tests");
MODULE_LICENSE("GPL");
