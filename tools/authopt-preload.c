// SPDX-License-Identifier: GPL-2.0
/*
 * Protects the connections of a program that knows nothing of TCP-AO: sets TCP_AUTHOPT on every TCP
 * socket that it opens. Connections with peers that its network namespace has a key for are then
 * signed (tcp-authopt-key adds keys), all others are as without this library.
 *
 *	cc -shared -fPIC -Iinclude/uapi -o authopt-preload.so tools/authopt-preload.c
 *	LD_PRELOAD=$PWD/authopt-preload.so bgpd ...
 *
 * Where the option cannot be set, socket() fails with its error: a routing daemon without sessions
 * is noticed, one with unsigned sessions is not. Sockets of MPTCP never have it (ENOPROTOOPT).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/tcp_authopt.h>

static int is_tcp(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) &&
	       (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
}

int socket(int domain, int type, int protocol)
{
	int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");
	struct tcp_authopt authopt = { 0 };
	int fd = next(domain, type, protocol);
	int error;

	if (fd < 0 || !is_tcp(domain, type, protocol) ||
	    !setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT, &authopt, sizeof(authopt)))
		return fd;

	error = errno;
	fprintf(stderr, "authopt-preload: TCP_AUTHOPT: %s: %s\n", strerror(error),
		protocol == IPPROTO_MPTCP ? "MPTCP has no protection, let the daemon use TCP" :
		"is the module loaded, and net.ipv4.tcp_authopt 1?");
	close(fd);
	errno = error;
	return -1;
}
