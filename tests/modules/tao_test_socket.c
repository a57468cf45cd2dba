// SPDX-License-Identifier: GPL-2.0
/*
 * Sockets of the kernel's own, as NFS and the like have them: they belong to no program, and do not
 * keep their network namespace, which is that of whoever writes. Each of them says hello once.
 *
 * listen: an address and a port. accept: read, it takes a connection, or is EAGAIN.
 * connect: an address and a port; the error is that of the socket. They go with the module.
 */
#include <linux/inet.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/nsproxy.h>
#include <linux/string.h>
#include <net/net_namespace.h>
#include <net/sock.h>

/* What writes and reads parameters has a lock around it. */
static struct socket *listener, *connection;

static void replace(struct socket **where, struct socket *sock)
{
	if (*where)
		sock_release(*where);
	*where = sock;
}

/* What has become of a new socket: it is kept, or goes with the error. */
static int keep(struct socket **where, struct socket *sock, int err)
{
	if (err)
		sock_release(sock);
	else
		replace(where, sock);
	return err;
}

static int say_hello(struct socket *sock)
{
	static char hello[] = "hello";
	struct kvec data = { .iov_base = hello, .iov_len = sizeof(hello) - 1 };
	struct msghdr message = { .msg_flags = MSG_DONTWAIT };
	int sent = kernel_sendmsg(sock, &message, &data, 1, data.iov_len);

	return sent < 0 ? sent : 0;
}

/* A socket of the writer's namespace, for the address and port that @value names. */
static int make(const char *value, struct socket **sock, struct sockaddr_storage *addr)
{
	struct net *net = current->nsproxy->net_ns;
	char words[INET6_ADDRSTRLEN + 8], *port = words, *host;
	int err;

	if (strscpy(words, value) < 0)
		return -EINVAL;
	host = strsep(&port, " ");
	if (!port)
		return -EINVAL;
	err = inet_pton_with_scope(net, AF_UNSPEC, host, strim(port), addr);
	if (err)
		return err;
	err = sock_create_kern(net, addr->ss_family, SOCK_STREAM, IPPROTO_TCP, sock);
	if (err)
		return err;
	WRITE_ONCE((*sock)->sk->sk_sndtimeo, 10 * HZ);
	return 0;
}

static int listen_set(const char *value, const struct kernel_param *param)
{
	struct sockaddr_storage addr;
	struct socket *sock;
	int err;

	err = make(value, &sock, &addr);
	if (err)
		return err;
	err = kernel_bind(sock, (struct sockaddr_unsized *)&addr, sizeof(addr));
	if (!err)
		err = kernel_listen(sock, 8);
	return keep(&listener, sock, err);
}

static const struct kernel_param_ops listen_ops = { .set = listen_set };
module_param_cb(listen, &listen_ops, NULL, 0200);
MODULE_PARM_DESC(listen, "an address and a port of the writer's network namespace");

static int accept_get(char *buffer, const struct kernel_param *param)
{
	struct socket *sock;
	int err;

	if (!listener)
		return -ENOTCONN;
	err = kernel_accept(listener, &sock, O_NONBLOCK);
	if (err)
		return err;
	replace(&connection, sock);
	err = say_hello(sock);
	return err ?: sysfs_emit(buffer, "accepted\n");
}

static const struct kernel_param_ops accept_ops = { .get = accept_get };
module_param_cb(accept, &accept_ops, NULL, 0400);
MODULE_PARM_DESC(accept, "takes a connection");

static int connect_set(const char *value, const struct kernel_param *param)
{
	struct sockaddr_storage addr;
	struct socket *sock;
	int err;

	err = make(value, &sock, &addr);
	if (err)
		return err;
	err = kernel_connect(sock, (struct sockaddr_unsized *)&addr, sizeof(addr), 0);
	if (!err)
		err = say_hello(sock);
	return keep(&connection, sock, err);
}

static const struct kernel_param_ops connect_ops = { .set = connect_set };
module_param_cb(connect, &connect_ops, NULL, 0200);
MODULE_PARM_DESC(connect, "an address and a port to connect to");

static int __init socket_init(void)
{
	return 0;
}
module_init(socket_init);

static void __exit socket_exit(void)
{
	replace(&connection, NULL);
	replace(&listener, NULL);
}
module_exit(socket_exit);

MODULE_DESCRIPTION("Sockets of the kernel's own, for tests");
MODULE_LICENSE("GPL");
