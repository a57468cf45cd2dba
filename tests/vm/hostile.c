// SPDX-License-Identifier: GPL-2.0
/*
 * Random calls of socket options 38 to 42, on sockets of all kinds.
 *
 *	cc -O2 -Iinclude/uapi -o hostile tests/vm/hostile.c
 *	hostile SEED CALLS [LIE]
 *
 * Half of the calls carry what would be valid with 1 to 8 bytes changed, the others random bytes of
 * a random length; one in 16 has a pointer that faults. What must hold:
 *
 * - a call that is refused has changed neither /proc/net/tcp_authopt nor what the socket's
 *   TCP_AUTHOPT reads back; one that is accepted has changed what it says, by one row at most, and
 *   a socket without state has some if a key was added;
 * - getsockopt() writes no byte behind those that it says it has written;
 * - at least 20 % of the calls come past the check of their flags: else it would be all that is
 *   tested;
 * - at the end of a namespace every row of /proc can be deleted by what it shows; with the key
 *   back a protected connection carries data, as an unprotected one does, and each is what it was.
 *
 * LIE makes one of the expectations wrong: "keys", "state", "reach" or "rows". The program has to
 * fail then, which shows that it can.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/tcp.h>
#include <linux/tcp_authopt.h>

#define AUTHOPT_FLAGS	0x1000fU
#define KEY_FLAGS	0x7ffU
#define POLICY_FLAGS	0xf0000U
#define MORE_FLAGS	(POLICY_FLAGS | 0xf00000U)	/* of what the series does not have */
/* Calls in one namespace, so that it has few keys: /proc is read after each call. */
#define EPOCH		1000
#define LEAST_PAST	20
#define PAGE		4096
#define ROOM		(16 * PAGE)

static uint64_t seed, state, call_number;
static const char *lie = "";

__attribute__((noreturn, format(printf, 1, 2)))
static void fail(const char *format, ...)
{
	va_list arguments;

	printf("hostile: FAILED with seed %llu in call %llu: ", (unsigned long long)seed,
	       (unsigned long long)call_number);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	exit(1);
}

/* What is prepared here works, or nothing that is tested means anything. */
static int must(int ret, const char *what)
{
	if (ret < 0)
		fail("%s: %s", what, strerror(errno));
	return ret;
}

static bool lying(const char *what)
{
	return !strcmp(lie, what);
}

/* ---- chance: splitmix64 ---- */

static uint64_t draw(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned int below(unsigned int bound)
{
	return draw() % bound;
}

static bool one_in(unsigned int n)
{
	return !below(n);
}

static void fill(void *to, size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t some = draw();

		memcpy(to + i, &some, len - i < sizeof(some) ? len - i : sizeof(some));
	}
}

/* ---- sockets ---- */

enum kind {
	FRESH, LISTENING, PROTECTED, ACCEPTED, UNPROTECTED, PLAIN, NATIVE, CLOSED, IN_REPAIR, KINDS
};

static const char *const kind_names[KINDS] = {
	"fresh", "listening", "protected", "accepted protected", "unprotected", "plain", "native",
	"closed", "in repair",
};

static const int families[] = { AF_INET, AF_INET6 };
#define FAMILIES 2

struct slot {
	enum kind kind;
	int family;
	int fd;
	int peer;	/* the other end, or -1 */
};

static struct slot slots[FAMILIES][KINDS];
static bool slots_open;

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t loopback(int family, union address *address)
{
	memset(address, 0, sizeof(*address));
	address->any.sa_family = family;
	if (family == AF_INET) {
		address->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(address->v4);
	}
	address->v6.sin6_addr = in6addr_loopback;
	return sizeof(address->v6);
}

static int new_socket(int family)
{
	return must(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
}

static void protect(int fd)
{
	struct tcp_authopt authopt = { 0 };

	must(setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT, &authopt, sizeof(authopt)), "TCP_AUTHOPT");
}

/* The key of the protected connections: both their ends are this host, so both ids are one. */
static void add_key(int family)
{
	struct tcp_authopt_key key = {
		.flags = TCP_AUTHOPT_KEY_ADDR_BIND,
		.send_id = 61,
		.recv_id = 61,
		.alg = TCP_AUTHOPT_ALG_HMAC_SHA_1_96,
		.keylen = 6,
		.key = "secret",
	};
	union address address;
	int fd = new_socket(family);

	memcpy(&key.addr, &address, loopback(family, &address));
	must(setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT_KEY, &key, sizeof(key)), "TCP_AUTHOPT_KEY");
	close(fd);
}

static void add_native_key(int fd, int family)
{
	struct tcp_ao_add add = {
		.alg_name = "hmac(sha1)", .sndid = 7, .rcvid = 7, .keylen = 1, .key = "x",
		.prefix = family == AF_INET ? 32 : 128,
	};
	union address address;

	memcpy(&add.addr, &address, loopback(family, &address));
	must(setsockopt(fd, IPPROTO_TCP, TCP_AO_ADD_KEY, &add, sizeof(add)), "TCP_AO_ADD_KEY");
}

static void reset(int fd)
{
	struct linger now = { .l_onoff = 1 };
	int off = TCP_REPAIR_OFF;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void prepare(int fd, enum kind kind, int family)
{
	if (kind == NATIVE)
		add_native_key(fd, family);
	else if (kind != PLAIN && kind != FRESH)
		protect(fd);
}

/* Whether a connection is protected is up to the keys that are there now. */
static void open_slot(struct slot *slot, enum kind kind, int family)
{
	int listener, accepted, on = TCP_REPAIR_ON;
	union address address;
	socklen_t len = loopback(family, &address);

	*slot = (struct slot) { kind, family, new_socket(family), -1 };
	prepare(slot->fd, kind, family);
	if (kind == FRESH)
		return;
	if (kind == LISTENING) {
		must(listen(slot->fd, 1), "listen");
		return;
	}
	listener = new_socket(family);
	prepare(listener, kind, family);
	must(bind(listener, &address.any, len), "bind");
	must(listen(listener, 1), "listen");
	must(getsockname(listener, &address.any, &len), "getsockname");
	must(connect(slot->fd, &address.any, len), "connect");
	accepted = must(accept(listener, NULL, NULL), "accept");
	close(listener);
	slot->peer = accepted;
	if (kind == ACCEPTED) {
		slot->peer = slot->fd;
		slot->fd = accepted;
	} else if (kind == CLOSED) {
		struct pollfd poll_fd = { .fd = slot->fd };

		reset(accepted);
		slot->peer = -1;
		if (must(poll(&poll_fd, 1, 20000), "poll") != 1)
			fail("the reset did not come");
	} else if (kind == IN_REPAIR) {
		must(setsockopt(slot->fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)), "TCP_REPAIR");
	}
}

static void close_slot(struct slot *slot)
{
	reset(slot->fd);
	reset(slot->peer);
}

/* Also after a failure: a connection without its key would hold the module for minutes. */
static void close_slots(void)
{
	for (int i = 0; slots_open && i < FAMILIES; i++)
		for (enum kind kind = 0; kind < KINDS; kind++)
			close_slot(&slots[i][kind]);
	slots_open = false;
}

/* ---- what must not change: the keys, and the state of a socket ---- */

static int proc = -1;

struct keys {
	uint64_t digest;
	unsigned int rows;
};

/* Reads /proc/net/tcp_authopt; calls @row with each row. */
static struct keys read_keys(void (*row)(char *))
{
	static char text[1 << 20];
	struct keys keys = { .digest = 0xcbf29ce484222325 };
	size_t len = 0;
	ssize_t got;

	must(lseek(proc, 0, SEEK_SET), "lseek");
	while ((got = must(read(proc, text + len, sizeof(text) - 8 - len), "read")))
		len += got;
	memset(text + len, 0, sizeof(uint64_t));
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t some;

		memcpy(&some, text + i, sizeof(some));
		keys.digest = (keys.digest ^ some) * 0x100000001b3;
		keys.digest ^= keys.digest >> 32;
	}
	for (char *at = text; (at = strchr(at, '\n')); at++)
		keys.rows++;
	if (!keys.rows--)
		fail("no heading in /proc/net/tcp_authopt");
	if (row) {
		strtok(text, "\n");
		for (char *line; (line = strtok(NULL, "\n"));)
			row(line);
	}
	return keys;
}

struct shown {
	int error;
	struct tcp_authopt authopt;
};

static struct shown read_state(int fd)
{
	struct shown shown = { 0 };
	socklen_t len = sizeof(shown.authopt);

	if (getsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT, &shown.authopt, &len))
		shown = (struct shown) { .error = errno };
	return shown;
}

static bool same_state(const struct shown *a, const struct shown *b)
{
	return a->error == b->error && !memcmp(&a->authopt, &b->authopt, sizeof(a->authopt));
}

static void delete_row(char *row)
{
	struct tcp_authopt_key key = { 0 };
	unsigned int flags, send_id, recv_id;
	char address[64], *slash;
	int fd;

	if (sscanf(row, "%x %u %u %*u %63s %d", &flags, &send_id, &recv_id, address,
		   &key.ifindex) != 5)
		fail("no row of /proc/net/tcp_authopt: %s", row);
	slash = strchr(address, '/');
	if (slash) {
		*slash = 0;
		key.prefixlen = atoi(slash + 1);
	}
	key.flags = flags | TCP_AUTHOPT_KEY_DEL;
	key.send_id = send_id;
	key.recv_id = recv_id;
	if (strcmp(address, "*")) {
		union address *to = (union address *)&key.addr;

		to->any.sa_family = strchr(address, ':') ? AF_INET6 : AF_INET;
		if (inet_pton(to->any.sa_family, address,
			      to->any.sa_family == AF_INET ? (void *)&to->v4.sin_addr :
							     (void *)&to->v6.sin6_addr) != 1)
			fail("no address in /proc/net/tcp_authopt: %s", address);
	}
	fd = new_socket(AF_INET);
	if (setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT_KEY, &key, sizeof(key)))
		fail("key %x %s cannot be deleted: %s", flags, address, strerror(errno));
	close(fd);
}

/* ---- calls ---- */

struct call {
	bool set;
	int option;
	socklen_t len;	/* given to the kernel */
	size_t bytes;	/* in the buffer; more can be told */
	uint8_t *value;
	socklen_t *len_at;
	bool faults;
	bool was_valid;
};

/* Pages between two that cannot be touched. A value ends where they end. */
static uint8_t *room;
static uint8_t *read_only;

static void map_room(void)
{
	uint8_t *at = mmap(NULL, ROOM + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || mprotect(at + PAGE, ROOM, PROT_READ | PROT_WRITE))
		fail("no memory");
	room = at + PAGE;
	read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (read_only == MAP_FAILED)
		fail("no memory");
}

static void draw_address(struct __kernel_sockaddr_storage *addr, int family, int prefixlen)
{
	union address *to = (union address *)addr;
	uint8_t *bytes;
	int len;

	to->any.sa_family = family;
	bytes = family == AF_INET ? (uint8_t *)&to->v4.sin_addr : (uint8_t *)&to->v6.sin6_addr;
	len = family == AF_INET ? 4 : 16;
	/* Few, so that keys meet. */
	for (int i = 0; i < len; i++)
		bytes[i] = 8 * i < prefixlen ? 192 : 0;
	if (prefixlen == 8 * len)
		bytes[len - 1] += below(2);
	if (prefixlen % 8)
		bytes[prefixlen / 8] &= 0xff << (8 - prefixlen % 8);
}

static void valid_key(struct tcp_authopt_key *key, int family)
{
	int prefixlen = family == AF_INET ? 32 : 128;

	memset(key, 0, sizeof(*key));
	key->flags = draw() & KEY_FLAGS & ~(TCP_AUTHOPT_KEY_DEL | TCP_AUTHOPT_KEY_PREFIXLEN);
	key->flags |= one_in(2) ? TCP_AUTHOPT_KEY_DEL : 0;
	key->send_id = below(4);
	key->recv_id = key->send_id + below(2);
	key->alg = 1 + below(3);
	key->keylen = below(TCP_AUTHOPT_MAXKEYLEN + 1);
	fill(key->key, key->keylen);
	if (key->flags & TCP_AUTHOPT_KEY_ADDR_BIND) {
		if (one_in(2)) {
			key->flags |= TCP_AUTHOPT_KEY_PREFIXLEN;
			key->prefixlen = prefixlen = one_in(8) ? below(prefixlen + 1) : 24;
		}
		draw_address(&key->addr, family, prefixlen);
	}
	key->send_lifetime_begin = draw() >> 1;
	key->send_lifetime_end = draw() | 1ULL << 63;
	key->recv_lifetime_begin = draw() >> 1;
	key->recv_lifetime_end = draw() | 1ULL << 63;
}

/* What the option takes, of this project or of the kernel's own TCP-AO; returns its length. */
static size_t valid_value(struct call *call, int family, bool native, uint8_t *to)
{
	union {
		struct tcp_authopt authopt;
		struct tcp_authopt_key key;
		struct tcp_repair_authopt repair;
		struct tcp_ao_add add;
		struct tcp_ao_del del;
		struct tcp_ao_info_opt info;
		struct tcp_ao_getsockopt get;
		struct tcp_ao_repair ao_repair;
	} value;
	int host = family == AF_INET ? 32 : 128;
	size_t len = 0;

	memset(&value, 0, sizeof(value));
	native |= call->option > TCP_REPAIR_AUTHOPT;
	switch (call->option) {
	case TCP_AUTHOPT:
		if (native && call->set) {
			len = sizeof(value.add);
			strcpy(value.add.alg_name, one_in(2) ? "hmac(sha1)" : "cmac(aes128)");
			value.add.sndid = draw();
			value.add.rcvid = draw();
			value.add.prefix = host;
			value.add.keylen = below(80);
			draw_address((void *)&value.add.addr, family, host);
		} else {
			len = sizeof(value.authopt);
			fill(&value.authopt, len);
			value.authopt.flags &= AUTHOPT_FLAGS;
		}
		break;
	case TCP_AUTHOPT_KEY:
		if (native) {
			len = sizeof(value.del);
			value.del.sndid = draw();
			value.del.rcvid = draw();
			value.del.prefix = host;
			draw_address((void *)&value.del.addr, family, host);
		} else {
			len = sizeof(value.key);
			valid_key(&value.key, family);
		}
		break;
	case TCP_REPAIR_AUTHOPT:
		len = native ? sizeof(value.info) : sizeof(value.repair);
		if (!native)
			fill(&value.repair, len);
		break;
	case TCP_AO_GET_KEYS:
		len = sizeof(value.get);
		value.get.nkeys = 1;
		value.get.get_all = 1;
		break;
	default:
		len = sizeof(value.ao_repair);
		fill(&value.ao_repair, len);
	}
	memcpy(to, &value, len);
	return len;
}

static size_t random_value(uint8_t *to)
{
	static const uint32_t lengths[] = {
		0, 1, 3, 4, 5, 7, 8, 9, 16, 23, 24, 25, 48, 64, 88, 143, 144, 145, 216, 224, 255, 256,
		257, 287, 288, 289, 304, 512, PAGE - 1, PAGE, PAGE + 1, ROOM,
	};
	size_t len = lengths[below(sizeof(lengths) / sizeof(*lengths))];
	unsigned int style = below(3);
	uint32_t flags;

	memset(to, 0, len);
	if (style == 0) {
		fill(to, len < 512 ? len : 512);
	} else {
		/* a few bytes that are not zero, and flags that may be known */
		for (unsigned int i = below(8); len && i; i--)
			to[below(len < 300 ? len : 300)] = draw();
		if (len >= 4 && style == 2) {
			flags = draw() & draw() & KEY_FLAGS;
			memcpy(to, &flags, 4);
		}
	}
	return len;
}

static void draw_call(struct call *call, const struct slot *slot)
{
	static const uint8_t options[] = {
		38, 38, 38, 38, 39, 39, 39, 39, 39, 39, 39, 39, 40, 40, 41, 42,
	};
	static uint8_t value[ROOM];
	static socklen_t len;

	memset(call, 0, sizeof(*call));
	call->option = options[below(sizeof(options))];
	call->set = !one_in(6);
	call->was_valid = one_in(2);
	if (call->was_valid) {
		bool native = slot->kind == NATIVE ? !one_in(4) : one_in(8);

		call->bytes = valid_value(call, slot->family, native, value);
		for (unsigned int i = 1 + below(8); i; i--)
			value[below(call->bytes)] = draw();
	} else {
		call->bytes = random_value(value);
	}
	call->len = call->bytes;
	call->value = room + (call->set ? ROOM - call->bytes : 0);
	memcpy(call->value, value, call->bytes);
	if (!call->set)
		memset(call->value + call->bytes, 0x5a, call->bytes < ROOM ? PAGE / 2 : 0);
	len = call->len;
	call->len_at = &len;
	if (one_in(16)) {
		call->faults = true;
		switch (below(6)) {
		case 0:
			call->value = NULL;
			break;
		case 1:
			call->value = room + ROOM - below(8);
			break;
		case 2:
			call->value = (uint8_t *)0xffff888000000000;
			break;
		case 3:
			call->value = read_only;
			break;
		case 4:
			len = call->len = one_in(2) ? INT_MAX : (socklen_t)-1 - below(16);
			break;
		case 5:
			call->len_at = one_in(2) ? NULL : (void *)(room + ROOM - below(4));
		}
	}
}

/* Whether it is known to have come past the check of its flags. */
static bool is_past(const struct call *call, bool native, int error)
{
	struct tcp_authopt_key key = { 0 };
	size_t size = call->option == TCP_AUTHOPT ? sizeof(struct tcp_authopt) : sizeof(key);
	uint32_t known = call->option == TCP_AUTHOPT ? AUTHOPT_FLAGS : KEY_FLAGS | MORE_FLAGS;

	if (!call->set || native || call->option > TCP_AUTHOPT_KEY || call->faults ||
	    call->bytes > PAGE)
		return false;
	if (call->option == TCP_AUTHOPT_KEY &&
	    (error == ENOENT || error == EEXIST || error == ENOSPC))
		return true;
	if (error && error != EINVAL)
		return false;
	for (size_t i = size; i < call->bytes; i++)
		if (call->value[i])
			return false;
	memcpy(&key, call->value, call->bytes < sizeof(key) ? call->bytes : sizeof(key));
	return !(key.flags & ~known) &&
	       (call->option == TCP_AUTHOPT || key.keylen <= TCP_AUTHOPT_MAXKEYLEN);
}

/* ---- one call, and what it may have changed ---- */

static struct {
	uint64_t refused, past, faulting, was_valid;
	uint64_t answers[5][2][256];
} count;

static void check_written(const struct call *call, bool native, int error)
{
	size_t written = error ? 0 : *call->len_at;

	/* The kernel's own GET_KEYS writes as many records as it is asked for. */
	if (native || call->faults || call->option > TCP_REPAIR_AUTHOPT || call->len >= 48)
		return;
	if (written > call->len)
		fail("getsockopt(%d) says that it wrote %zu of %u bytes", call->option, written,
		     call->len);
	for (size_t i = call->len; i < call->len + 64; i++)
		if (call->value[i] != 0x5a)
			fail("getsockopt(%d) wrote behind its %u bytes", call->option, call->len);
}

/* An accepted TCP_AUTHOPT reads back. */
static void check_flags(const struct call *call, const struct shown *before,
			const struct shown *after)
{
	uint32_t flags = 0, active = before->authopt.flags & TCP_AUTHOPT_FLAG_ACTIVE;

	memcpy(&flags, call->value, call->bytes < sizeof(flags) ? call->bytes : sizeof(flags));
	flags &= ~TCP_AUTHOPT_FLAG_ACTIVE;
	if (after->error || after->authopt.flags != (flags | active))
		fail("set flags %x on %x, which reads back as %x, %s", flags, before->authopt.flags,
		     after->authopt.flags, strerror(after->error));
}

/*
 * What the series does not have is deleted at once: a row does not say all of its criteria, and a
 * policy might be for connections of this program.
 */
static void delete_at_once(const struct call *call)
{
	struct tcp_authopt_key key = { 0 };
	int fd = new_socket(AF_INET);

	memcpy(&key, call->value, call->bytes < sizeof(key) ? call->bytes : sizeof(key));
	key.flags |= TCP_AUTHOPT_KEY_DEL;
	if (setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT_KEY, &key, sizeof(key)))
		fail("what was added with flags %x cannot be deleted: %s", key.flags, strerror(errno));
	close(fd);
}

static void one_call(struct slot *slot, struct keys *keys)
{
	struct shown before = read_state(slot->fd), after;
	bool native = before.error == ENOPROTOOPT, is_more;
	uint32_t flags = 0;
	struct keys now;
	struct call call;
	int error;

	draw_call(&call, slot);
	errno = 0;
	if (call.set)
		error = setsockopt(slot->fd, IPPROTO_TCP, call.option, call.value, call.len);
	else
		error = getsockopt(slot->fd, IPPROTO_TCP, call.option, call.value, call.len_at);
	error = error ? errno : 0;
	count.answers[call.option - TCP_AUTHOPT][call.set][error & 0xff]++;
	count.faulting += call.faults;
	count.was_valid += call.was_valid;
	count.past += is_past(&call, native, error);
	count.refused += !!error;

	if (!error && call.set)
		memcpy(&flags, call.value, call.bytes < 4 ? call.bytes : 4);
	is_more = call.option == TCP_AUTHOPT_KEY && !native && flags & MORE_FLAGS &&
		  !(flags & TCP_AUTHOPT_KEY_DEL);
	if (is_more)
		delete_at_once(&call);

	if (lying("keys") && error && call_number > 100)
		add_key(slot->family);
	if (lying("state") && error && call_number > 100 && slot->kind == FRESH)
		protect(slot->fd);
	now = read_keys(NULL);
	after = read_state(slot->fd);
	if (error || call.option != TCP_AUTHOPT_KEY || native || is_more) {
		if (now.digest != keys->digest)
			fail("option %d on a %s socket, answered by %s, has changed the keys",
			     call.option, kind_names[slot->kind], strerror(error));
	} else {
		unsigned int least, most;

		/* A flag of a policy alone makes no policy of what is to be deleted. */
		least = keys->rows - !!(flags & TCP_AUTHOPT_KEY_DEL);
		most = flags & TCP_AUTHOPT_KEY_DEL ? least : keys->rows + 1;
		if (now.rows < least || now.rows > most)
			fail("flags %x make %u keys of %u", flags, now.rows, keys->rows);
	}
	/* A socket with neither state may get that of the kernel's TCP-AO. */
	if (!error && call.set && before.error == ENOENT && after.error == ENOPROTOOPT &&
	    call.len >= sizeof(struct tcp_ao_info_opt))
		before = after;
	/* It gets ours with a key, as if TCP_AUTHOPT had been set with all zeros. */
	if (!error && call.set && before.error == ENOENT && call.option == TCP_AUTHOPT_KEY &&
	    !(flags & (TCP_AUTHOPT_KEY_DEL | POLICY_FLAGS)))
		before = (struct shown) { 0 };
	if ((error || !call.set || call.option > TCP_AUTHOPT) && !same_state(&before, &after))
		fail("option %d on a %s socket, answered by %s, has changed its state",
		     call.option, kind_names[slot->kind], strerror(error));
	if (!error && call.set && call.option == TCP_AUTHOPT && !native &&
	    after.error != ENOPROTOOPT)
		check_flags(&call, &before, &after);
	if (!call.set)
		check_written(&call, native, error);
	*keys = now;
}

/* ---- a namespace ---- */

static void new_namespace(void)
{
	struct ifreq loopback_up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	must(unshare(CLONE_NEWNET), "unshare");
	fd = new_socket(AF_INET);
	must(ioctl(fd, SIOCSIFFLAGS, &loopback_up), "lo up");
	close(fd);
	if (proc >= 0)
		close(proc);
	proc = must(open("/proc/self/net/tcp_authopt", O_RDONLY | O_CLOEXEC), "tcp_authopt");
	for (int i = 0; i < FAMILIES; i++) {
		int family = families[i];
		enum kind last[] = { PROTECTED, ACCEPTED, IN_REPAIR, CLOSED };

		for (enum kind kind = 0; kind < KINDS; kind++)
			if (kind != PROTECTED && kind != ACCEPTED && kind != IN_REPAIR &&
			    kind != CLOSED)
				open_slot(&slots[i][kind], kind, family);
		add_key(family);
		for (size_t k = 0; k < sizeof(last) / sizeof(*last); k++)
			open_slot(&slots[i][last[k]], last[k], family);
	}
	slots_open = true;
}

static void carry(int from, int to, const char *what)
{
	struct pollfd readable = { .fd = to, .events = POLLIN };
	char byte = draw(), got;

	if (send(from, &byte, 1, MSG_NOSIGNAL) != 1)
		fail("%s connection: %s", what, strerror(errno));
	if (must(poll(&readable, 1, 30000), "poll") != 1 || read(to, &got, 1) != 1 || got != byte)
		fail("%s connection: what is sent does not come", what);
}

static void check_connection(const struct slot *slot, bool active)
{
	struct shown shown = read_state(slot->fd);

	if (!shown.error && !!(shown.authopt.flags & TCP_AUTHOPT_FLAG_ACTIVE) != active)
		fail("a connection that is %s has become another", kind_names[slot->kind]);
	carry(slot->fd, slot->peer, kind_names[slot->kind]);
	carry(slot->peer, slot->fd, kind_names[slot->kind]);
}

static void end_namespace(void)
{
	read_keys(delete_row);
	if (lying("rows"))
		add_key(AF_INET);
	if (read_keys(NULL).rows)
		fail("keys are left when each row was deleted");
	for (int i = 0; i < FAMILIES; i++) {
		add_key(families[i]);
		check_connection(&slots[i][PROTECTED], true);
		check_connection(&slots[i][ACCEPTED], true);
		check_connection(&slots[i][UNPROTECTED], false);
		check_connection(&slots[i][PLAIN], false);
	}
	close_slots();
}

static void report(uint64_t calls)
{
	printf("hostile: %llu calls: %llu of a valid value with changes, %llu with a pointer that "
	       "faults; %llu refused, %llu past the flag check; %llu namespaces\n",
	       (unsigned long long)calls, (unsigned long long)count.was_valid,
	       (unsigned long long)count.faulting, (unsigned long long)count.refused,
	       (unsigned long long)count.past, (unsigned long long)(calls + EPOCH - 1) / EPOCH);
	for (int set = 1; set >= 0; set--) {
		for (int option = 0; option < 5; option++) {
			printf("  %s %d:", set ? "set" : "get", option + TCP_AUTHOPT);
			for (int error = 0; error < 256; error++)
				if (count.answers[option][set][error])
					printf(" %s %llu", error ? strerrorname_np(error) : "0",
					       (unsigned long long)
					       count.answers[option][set][error]);
			putchar('\n');
		}
	}
}

int main(int argc, char **argv)
{
	unsigned int least = LEAST_PAST;
	struct keys keys = { 0 };
	uint64_t calls;

	if (argc < 3)
		return 2;
	seed = state = strtoull(argv[1], NULL, 0);
	calls = strtoull(argv[2], NULL, 0);
	lie = argc > 3 ? argv[3] : "";
	printf("hostile: seed %llu\n", (unsigned long long)seed);
	map_room();
	atexit(close_slots);
	for (call_number = 0; call_number < calls; call_number++) {
		struct slot *slot;

		if (call_number % EPOCH == 0) {
			if (call_number)
				end_namespace();
			new_namespace();
			keys = read_keys(NULL);
			fflush(stdout);
		}
		slot = &slots[below(FAMILIES)][below(KINDS)];
		if (slot->kind == FRESH && one_in(4)) {
			close_slot(slot);
			open_slot(slot, FRESH, slot->family);
		}
		one_call(slot, &keys);
	}
	end_namespace();
	report(calls);
	if (lying("reach"))
		least = 90;
	if (count.past * 100 < calls * least)
		fail("%llu of %llu calls past the flag check, under %u %%",
		     (unsigned long long)count.past, (unsigned long long)calls, least);
	return 0;
}
