// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's part of tests/secrets/check: a protected connection with itself for each algorithm,
 * and then its end, with a pause at either point in which the host looks into the memory. What signing
 * left on a stack would soon be overwritten by what the same process does next: so there are writers,
 * which do nothing after their one segment.
 *
 * The secrets are known to nobody here. They are made where setsockopt() takes them from and
 * overwritten right after, so that what the host finds is the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/tcp_authopt.h>

#define TCP_REPAIR	19
#define REPAIR_ON	1
#define REPAIR_OFF	-1	/* without a window probe */

static const enum tcp_authopt_alg algorithms[] = {
	TCP_AUTHOPT_ALG_HMAC_SHA_1_96,
	TCP_AUTHOPT_ALG_AES_128_CMAC_96,
};

static void check(int failed, const char *what)
{
	if (failed)
		err(1, "%s", what);
}

/* Of each algorithm there is a peer address, and a key for it with this number as both its ids. */
static struct sockaddr_in address(unsigned int number)
{
	return (struct sockaddr_in) {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number),
	};
}

static void change_key(int fd, unsigned int number, enum tcp_authopt_key_flag flags)
{
	struct sockaddr_in peer = address(number);
	struct tcp_authopt_key key = {
		.flags = TCP_AUTHOPT_KEY_ADDR_BIND | flags,
		.send_id = number,
		.recv_id = number,
		.alg = algorithms[number],
		.keylen = 32,
	};
	volatile unsigned char *secret = key.key;

	memcpy(&key.addr, &peer, sizeof(peer));
	if (!(flags & TCP_AUTHOPT_KEY_DEL))
		for (unsigned int i = 0; i < key.keylen; i++)
			secret[i] = 131 * number + 89 * i + i * i * 7 + 45;
	check(setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT_KEY, &key, sizeof(key)), "TCP_AUTHOPT_KEY");
	explicit_bzero(&key, sizeof(key));
}

static int protected_socket(unsigned int number)
{
	struct sockaddr_in own = address(number);
	struct tcp_authopt authopt = { 0 };
	struct linger reset = { 1, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd < 0, "socket");
	check(setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT, &authopt, sizeof(authopt)), "TCP_AUTHOPT");
	/* No TIME-WAIT. */
	check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), "SO_LINGER");
	check(bind(fd, (struct sockaddr *)&own, sizeof(own)), "bind");
	return fd;
}

/* Processes that have sent one segment from either end. */
static void send_and_wait(const int ends[2], pid_t writers[2])
{
	char byte;

	for (int i = 0; i < 2; i++) {
		writers[i] = fork();
		check(writers[i] < 0, "fork");
		if (!writers[i]) {
			check(write(ends[i], "", 1) != 1, "write");
			for (;;)
				pause();
		}
		check(read(ends[1 - i], &byte, 1) != 1, "read");
	}
}

/* Prints what the traffic keys are made of, and gives the two ends. */
static void talk(unsigned int number, int ends[2])
{
	int listener = protected_socket(number), on = REPAIR_ON, off = REPAIR_OFF;
	struct tcp_repair_authopt repair;
	struct sockaddr_in own, peer;
	socklen_t size = sizeof(peer);
	char buffer[8];

	check(listen(listener, 1), "listen");
	check(getsockname(listener, (struct sockaddr *)&peer, &size), "getsockname");
	ends[0] = protected_socket(number);
	check(connect(ends[0], (struct sockaddr *)&peer, sizeof(peer)), "connect");
	ends[1] = accept(listener, NULL, NULL);
	check(ends[1] < 0, "accept");
	for (int i = 0; i < 2; i++) {
		check(write(ends[i], "talking", 8) != 8, "write");
		check(read(ends[1 - i], buffer, 8) != 8, "read");
	}
	close(listener);
	size = sizeof(own);
	check(getsockname(ends[0], (struct sockaddr *)&own, &size), "getsockname");
	check(setsockopt(ends[0], IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)), "TCP_REPAIR");
	size = sizeof(repair);
	check(getsockopt(ends[0], IPPROTO_TCP, TCP_REPAIR_AUTHOPT, &repair, &size),
	      "TCP_REPAIR_AUTHOPT");
	check(setsockopt(ends[0], IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)), "TCP_REPAIR");
	printf("connection %u %u %u %u %u\n", number, ntohs(own.sin_port), ntohs(peer.sin_port),
	       repair.src_isn, repair.dst_isn);
}

/* The host answers by making a file. */
static void pause_for(const char *what)
{
	struct stat status;

	printf("look %s\n", what);
	fflush(stdout);
	while (stat(what, &status))
		usleep(20000);
}

int main(void)
{
	enum { COUNT = sizeof(algorithms) / sizeof(*algorithms) };
	pid_t writers[COUNT][2];
	int ends[COUNT][2], control = socket(AF_INET, SOCK_STREAM, 0);

	for (unsigned int i = 0; i < COUNT; i++) {
		change_key(control, i, 0);
		talk(i, ends[i]);
		send_and_wait(ends[i], writers[i]);
	}
	pause_for("in-use");
	for (unsigned int i = 0; i < COUNT; i++) {
		for (unsigned int end = 0; end < 2; end++) {
			check(kill(writers[i][end], SIGKILL), "kill");
			check(waitpid(writers[i][end], NULL, 0) < 0, "waitpid");
			close(ends[i][end]);
		}
		change_key(control, i, TCP_AUTHOPT_KEY_DEL);
	}
	close(control);
	while (syscall(SYS_delete_module, "tcp_authopt", O_NONBLOCK))
		check(errno != EAGAIN, "rmmod"); /* until the last socket has gone */
	pause_for("gone");
	return 0;
}
