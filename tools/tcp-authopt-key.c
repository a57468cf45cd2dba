// SPDX-License-Identifier: GPL-2.0
/*
 * Adds, replaces and deletes TCP-AO keys of the network namespace that it runs in.
 *
 *	cc -Iinclude/uapi -o tcp-authopt-key tools/tcp-authopt-key.c
 *	tcp-authopt-key add 192.0.2.1 send-id 61 recv-id 84 key-file /etc/bgp/key
 *
 * The key itself comes from a file or a pipe: arguments are for all to read in /proc.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/tcp_authopt.h>

static const char usage[] =
"usage: tcp-authopt-key add PEER send-id ID recv-id ID [OPTION]...\n"
"       tcp-authopt-key del PEER send-id ID recv-id ID\n"
"\n"
"Adds a key, or replaces the one with the same PEER and ids; deletes it.\n"
"PEER is an address, a prefix ADDRESS/LENGTH, or \"any\". The ids are the KeyIDs of\n"
"segments sent and received: send-id here is recv-id at the peer. Options:\n"
"\n"
"  algorithm NAME      SHA1 (default), AES128 or SHA256\n"
"  key-file FILE       read the key there rather than from standard input; a newline\n"
"                      at its end is not part of it\n"
"  hex                 the key is written in hexadecimal digits\n"
"  exclude-options     of the TCP options, the MAC covers the AO option only\n"
"  send-from TIME, send-until TIME      when to sign with the key, and\n"
"  accept-from TIME, accept-until TIME  when to accept it; TIME is +SECONDS from now, or\n"
"                                       @SECONDS of the epoch\n"
"\n"
"The keys are shown by /proc/net/tcp_authopt.\n";

/* The names that RFC 5926 section 3.1.1.3 asks for (R37), and one in their manner. */
static const struct {
	const char *name;
	enum tcp_authopt_alg alg;
} algorithms[] = {
	{ "SHA1", TCP_AUTHOPT_ALG_HMAC_SHA_1_96 },
	{ "AES128", TCP_AUTHOPT_ALG_AES_128_CMAC_96 },
	{ "SHA256", TCP_AUTHOPT_ALG_HMAC_SHA_256_96 },
};

static struct tcp_authopt_key key = { .alg = TCP_AUTHOPT_ALG_HMAC_SHA_1_96 };

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *format, ...)
{
	va_list arguments;

	fputs("tcp-authopt-key: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static unsigned long long parse_number(const char *what, const char *text, unsigned long long max)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || number > max)
		die("%s %s: not a number from 0 to %llu", what, text, max);
	return number;
}

static enum tcp_authopt_alg parse_algorithm(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++)
		if (!strcasecmp(name, algorithms[i].name))
			return algorithms[i].alg;
	die("algorithm %s: not one of SHA1, AES128, SHA256", name);
}

static __u64 parse_time(const char *what, const char *text)
{
	unsigned long long seconds;

	if (*text != '+' && *text != '@')
		die("%s %s: neither +SECONDS nor @SECONDS", what, text);
	seconds = parse_number(what, text + 1, LLONG_MAX / 2);
	return *text == '+' ? time(NULL) + seconds : seconds;
}

/* Gives the address family that the socket has to have. */
static int parse_peer(const char *text)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&key.addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&key.addr;
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchrnul(text, '/');
	int family;

	if (!strcmp(text, "any"))
		return AF_INET;
	snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		family = in->sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
		family = in6->sin6_family = AF_INET6;
	} else {
		die("%s: neither an address, nor a prefix, nor \"any\"", text);
	}
	key.flags |= TCP_AUTHOPT_KEY_ADDR_BIND;
	if (*slash) {
		key.flags |= TCP_AUTHOPT_KEY_PREFIXLEN;
		key.prefixlen = parse_number("prefix length", slash + 1, family == AF_INET ? 32 : 128);
	}
	return family;
}

static int hex_digit(int c)
{
	if (!isxdigit(c))
		die("the key has something else in it than hexadecimal digits");
	return isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
}

/* Fills key.key from FILE, or from standard input if that is NULL (RFC 5926 3.1, R34). */
static void read_key(const char *file, int hex)
{
	unsigned char text[2 * TCP_AUTHOPT_MAXKEYLEN + 2]; /* room for a newline, and to see excess */
	int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	size_t length = 0, i;
	ssize_t got = 1;

	if (fd < 0)
		die("%s: %s", file, strerror(errno));
	if (!file && isatty(fd))
		die("a key is not typed in for all to see: use key-file, or a pipe");
	while (got > 0 && length < sizeof(text)) {
		got = read(fd, text + length, sizeof(text) - length);
		if (got < 0)
			die("%s: %s", file ? file : "standard input", strerror(errno));
		length += got;
	}
	if (length && text[length - 1] == '\n')
		length--;
	if (!length)
		die("the key is empty");
	if (hex && length % 2)
		die("the key has an odd number of hexadecimal digits");
	if (length > (hex ? 2 : 1) * sizeof(key.key))
		die("the key is longer than %zu bytes", sizeof(key.key));

	if (hex) {
		for (i = 0; i < length; i += 2)
			key.key[i / 2] = hex_digit(text[i]) << 4 | hex_digit(text[i + 1]);
		length /= 2;
	} else {
		memcpy(key.key, text, length);
	}
	key.keylen = length;
}

int main(int argc, char **argv)
{
	const char *file = NULL;
	int send_id = -1, recv_id = -1, hex = 0;
	int fd, family, i;

	if (argc == 2 && (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc < 3 || (strcmp(argv[1], "add") && strcmp(argv[1], "del"))) {
		fputs(usage, stderr);
		return 2;
	}
	if (!strcmp(argv[1], "del"))
		key.flags |= TCP_AUTHOPT_KEY_DEL;
	family = parse_peer(argv[2]);

	for (i = 3; i < argc; i++) {
		const char *word = argv[i], *value = argv[i + 1];

		if (!strcmp(word, "hex")) {
			hex = 1;
			continue;
		} else if (!strcmp(word, "exclude-options")) {
			key.flags |= TCP_AUTHOPT_KEY_EXCLUDE_OPTS;
			continue;
		}
		if (!value)
			die("%s: unknown, or lacks a value; see \"tcp-authopt-key help\"", word);
		if (!strcmp(word, "send-id")) {
			send_id = parse_number(word, value, 255);
		} else if (!strcmp(word, "recv-id")) {
			recv_id = parse_number(word, value, 255);
		} else if (!strcmp(word, "algorithm")) {
			key.alg = parse_algorithm(value);
		} else if (!strcmp(word, "key-file")) {
			file = value;
		} else if (!strcmp(word, "send-from")) {
			key.flags |= TCP_AUTHOPT_KEY_SEND_LIFETIME_BEGIN;
			key.send_lifetime_begin = parse_time(word, value);
		} else if (!strcmp(word, "send-until")) {
			key.flags |= TCP_AUTHOPT_KEY_SEND_LIFETIME_END;
			key.send_lifetime_end = parse_time(word, value);
		} else if (!strcmp(word, "accept-from")) {
			key.flags |= TCP_AUTHOPT_KEY_RECV_LIFETIME_BEGIN;
			key.recv_lifetime_begin = parse_time(word, value);
		} else if (!strcmp(word, "accept-until")) {
			key.flags |= TCP_AUTHOPT_KEY_RECV_LIFETIME_END;
			key.recv_lifetime_end = parse_time(word, value);
		} else {
			die("unknown option %s; see \"tcp-authopt-key help\"", word);
		}
		i++;
	}
	if (send_id < 0 || recv_id < 0)
		die("send-id and recv-id are needed");
	key.send_id = send_id;
	key.recv_id = recv_id;
	if (!(key.flags & TCP_AUTHOPT_KEY_DEL))
		read_key(file, hex);

	/* Without it the kernel's own TCP-AO would get the call. */
	if (access("/proc/net/tcp_authopt", F_OK))
		die("the module tcp_authopt is not loaded");
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (!setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT_KEY, &key, sizeof(key)))
		return 0;
	if (errno == EPERM)
		die("not permitted: needs net.ipv4.tcp_authopt=1, and CAP_NET_ADMIN");
	if (errno == ENOENT)
		die("there is no such key");
	if (errno == EEXIST)
		die("another key for this peer has one of these ids");
	die("%s", strerror(errno));
}
