// SPDX-License-Identifier: GPL-2.0
/*
 * Adds, replaces and deletes TCP-AO keys and policies of the network namespace that it runs in.
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
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <linux/tcp_authopt.h>

static const char usage[] =
"usage: tcp-authopt-key add PEER [WHERE]... send-id ID recv-id ID [OPTION]...\n"
"       tcp-authopt-key del PEER [WHERE]... send-id ID recv-id ID\n"
"       tcp-authopt-key require PEER [WHERE]... [strict] [accept-icmp] [--force]\n"
"       tcp-authopt-key exempt PEER [WHERE]...\n"
"       tcp-authopt-key del PEER [WHERE]... policy\n"
"       tcp-authopt-key load FILE\n"
"       tcp-authopt-key check FILE\n"
"\n"
"Adds a key, or replaces the one with the same PEER, WHERE and ids; deletes it.\n"
"PEER is an address, a prefix ADDRESS/LENGTH, or \"any\". The ids are the KeyIDs of\n"
"segments sent and received: send-id here is recv-id at the peer. WHERE:\n"
"\n"
"  local ADDRESS       only connections of this address of this end, or prefix\n"
"  port PORT           only connections of which one end has this port: 179 is BGP,\n"
"                      whoever connects\n"
"  vrf NAME            only connections in this VRF, which need not be there yet\n"
"\n"
"Options:\n"
"\n"
"  algorithm NAME      SHA1 (default), AES128 or SHA256\n"
"  key-file FILE       read the key there rather than from standard input\n"
"  hex                 the key is written in hexadecimal digits\n"
"  exclude-options     of the TCP options, the MAC covers the AO option only\n"
"  send-from TIME, send-until TIME      when to sign with the key, and\n"
"  accept-from TIME, accept-until TIME  when to accept it; TIME is +SECONDS from now, or\n"
"                                       @SECONDS of the epoch\n"
"\n"
"The key is one line of text, whose newline is not part of it. What an editor may have\n"
"left there is refused: blanks at either end, control characters, more lines, CRLF, a\n"
"byte-order mark. A key with such bytes is written in hex, where blanks and line ends\n"
"around the digits do not count.\n"
"\n"
"A key protects the connections of programs that ask. \"require\" is for those of all\n"
"others: what matches is signed, and nothing else goes through; without a key nothing\n"
"does. \"exempt\" makes an exception for what is more specific. With \"strict\" the kernel's\n"
"own TCP-AO does not do, and with \"accept-icmp\" ICMP errors end connections. What would\n"
"lock you out is refused without \"--force\": this session, loopback, and more than a /16\n"
"of IPv4 or a /32 of IPv6, the last two unless there is a port.\n"
"\n"
"A line of FILE is what would be typed behind \"tcp-authopt-key\": add, require or exempt,\n"
"keys by key-file with a whole path, times by @SECONDS, \"--force\" included; what follows a\n"
"blank and a # is a comment. FILE is not to be written to by others, and a file of a key not\n"
"to be read by them either. \"load\" adds all policies first, in their order, and then the\n"
"keys; what is wrong is told, and does not hold up the rest. \"check\" reads the same and adds\n"
"nothing. The status of both is 3 if all lines were understood and all policies are in force\n"
"and only keys are missing, and 1 if anything else is wrong.\n"
"\n"
"Keys and policies are shown by /proc/net/tcp_authopt_entries.\n";

/* The names that RFC 5926 section 3.1.1.3 asks for (R37), and one in their manner. */
static const struct {
	const char *name;
	enum tcp_authopt_alg alg;
} algorithms[] = {
	{ "SHA1", TCP_AUTHOPT_ALG_HMAC_SHA_1_96 },
	{ "AES128", TCP_AUTHOPT_ALG_AES_128_CMAC_96 },
	{ "SHA256", TCP_AUTHOPT_ALG_HMAC_SHA_256_96 },
};

static struct tcp_authopt_key key;

/* The line of a file that is being done; 0: there is no file, but one command, which was typed. */
static const char *file_name;
static unsigned int file_line;
static jmp_buf line_is_wrong;

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *format, ...)
{
	va_list arguments;

	if (file_line)
		fprintf(stderr, "%s:%u: ", file_name, file_line);
	else
		fputs("tcp-authopt-key: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	if (file_line)
		longjmp(line_is_wrong, 1);
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
	int is_time = (*text == '+' || *text == '@') && text[1] &&
		      !text[1 + strspn(text + 1, "0123456789")];

	if (!is_time && file_line)
		die("%s %s: not @SECONDS of the epoch, which \"date -d DATE +%%s\" prints", what, text);
	if (!is_time)
		die("%s %s: neither +SECONDS from now nor @SECONDS of the epoch; a date is "
		    "@$(date -d DATE +%%s)", what, text);
	if (*text == '+' && file_line)
		die("%s %s: in a file this would be another time with every load; write @%llu", what, text,
		    time(NULL) + parse_number(what, text + 1, LLONG_MAX / 2));
	seconds = parse_number(what, text + 1, LLONG_MAX / 2);
	return *text == '+' ? time(NULL) + seconds : seconds;
}

static void check_lifetime(const char *what, __u32 begin_flag, __u64 begin, __u32 end_flag, __u64 end)
{
	if ((key.flags & begin_flag) && (key.flags & end_flag) && end < begin)
		die("%s-until is %llu s before %s-from: there is no time between them; is one the "
		    "other?", what, (unsigned long long)(begin - end), what);
}

/* The family of an address, whose bytes go to @bytes; 0: it is none. */
static int parse_address(const char *text, unsigned char bytes[16])
{
	if (inet_pton(AF_INET, text, bytes) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, text, bytes) == 1 ? AF_INET6 : 0;
}

/* What is no address may be one with something around it that keys do not know. */
__attribute__((noreturn))
static void die_of_address(const char *text, char *address, int any)
{
	unsigned char bytes[16];
	char *end;

	if ((end = strchr(address, '%'))) {
		*end = '\0';
		if (parse_address(address, bytes))
			die("%s: a key is for no interface; %s is this address on every link of its VRF",
			    text, address);
	} else if (*address == '[' && (end = strchr(address, ']'))) {
		*end = '\0';
		if (parse_address(address + 1, bytes) && !end[1])
			die("%s: an address has no brackets here: write %s", text, address + 1);
		if (parse_address(address + 1, bytes) && end[1] == ':')
			die("%s: a port is written behind: %s port %s", text, address + 1, end + 2);
	} else if ((end = strchr(address, ':'))) {
		*end = '\0';
		if (parse_address(address, bytes) == AF_INET)
			die("%s: a port is written behind: %s port %s", text, address, end + 1);
	}
	die("%s: neither an address, nor a prefix ADDRESS/LENGTH%s; names are not looked up", text,
	    any ? ", nor \"any\"" : "");
}

/* Clears the bits behind the first @length; whether there were any. */
static int clear_behind(unsigned char *address, int size, int length)
{
	int i, found = 0;

	for (i = 0; i < size; i++) {
		int bits = length - 8 * i;
		unsigned char mask = bits >= 8 ? 0xff : bits > 0 ? 0xff << (8 - bits) : 0;

		found |= address[i] & ~mask;
		address[i] &= mask;
	}
	return found;
}

/* A prefix has no bits behind its length: which one was meant is not for this program to know. */
static void check_prefix(const char *text, const char *address, int family, unsigned char *bytes,
			 int length)
{
	int mapped = family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((struct in6_addr *)bytes);
	char v4[INET_ADDRSTRLEN], right[INET6_ADDRSTRLEN];

	if (mapped && length < 96) {
		if (length > 32)
			die("%s: an IPv4 prefix written like this has a length from 96 to 128", text);
		clear_behind(bytes + 12, 4, length);
		inet_ntop(AF_INET, bytes + 12, v4, sizeof(v4));
		die("%s: these are IPv6 bits; an IPv4 prefix is written %s/%d, or ::ffff:%s/%d", text, v4,
		    length, v4, length + 96);
	}
	if (!clear_behind(bytes, family == AF_INET ? 4 : 16, length))
		return;
	inet_ntop(family, bytes, right, sizeof(right));
	die("%s: bits are set behind the prefix; the prefix is %s/%d, the one address %s", text, right,
	    length, address);
}

/* Gives the family of an address or prefix; *@length is -1 if there is no length. */
static int parse_prefix(const char *text, int any, unsigned char bytes[16], int *length)
{
	char address[64]; /* no address is that long, with an interface or a port */
	const char *slash = strchrnul(text, '/');
	int family;

	snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
	family = parse_address(address, bytes);
	if (!family)
		die_of_address(text, address, any);
	*length = -1;
	if (*slash) {
		*length = parse_number("prefix length", slash + 1, family == AF_INET ? 32 : 128);
		check_prefix(text, address, family, bytes, *length);
	}
	return family;
}

static void parse_peer(const char *text)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&key.addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&key.addr;
	unsigned char bytes[16];
	int length;

	if (!strcmp(text, "any"))
		return;
	key.flags |= TCP_AUTHOPT_KEY_ADDR_BIND;
	key.addr.ss_family = parse_prefix(text, 1, bytes, &length);
	if (key.addr.ss_family == AF_INET)
		memcpy(&in->sin_addr, bytes, sizeof(in->sin_addr));
	else
		memcpy(&in6->sin6_addr, bytes, sizeof(in6->sin6_addr));
	if (length >= 0) {
		key.flags |= TCP_AUTHOPT_KEY_PREFIXLEN;
		key.prefixlen = length;
	}
}

/* The address of this end is in the family of the peer's, which is known. */
static void parse_local(const char *text)
{
	int length, family = parse_prefix(text, 0, key.local, &length);

	if (key.addr.ss_family && key.addr.ss_family != family)
		die("local %s: the peer is given in the other family, and a connection has one", text);
	key.addr.ss_family = family;
	key.flags |= TCP_AUTHOPT_KEY_LOCAL_ADDR;
	if (length >= 0) {
		key.flags |= TCP_AUTHOPT_KEY_LOCAL_PREFIXLEN;
		key.local_prefixlen = length;
	}
}

static void parse_port(const char *text)
{
	key.service_port = parse_number("port", text, 65535);
	if (!key.service_port)
		die("port 0: no connection has it; without \"port\" a key is for all");
	key.flags |= TCP_AUTHOPT_KEY_SERVICE_PORT;
}

static void parse_vrf(const char *text)
{
	/* Of blanks the last one is that of Latin-1, which the kernel counts, too. */
	if (!*text || strlen(text) >= sizeof(key.vrf) || strpbrk(text, "/: \t\n\v\f\r\xa0") ||
	    !strcmp(text, ".") || !strcmp(text, ".."))
		die("vrf %s: no device has such a name", text);
	memcpy(key.vrf, text, strlen(text));
	key.flags |= TCP_AUTHOPT_KEY_VRF_NAME;
}

/* ---- what would lock the operator out ---- */

/* Whether an address, or any of a prefix, is in the prefix of @length that @in begins. */
static int is_within(const unsigned char *bytes, const unsigned char *in, int length)
{
	for (; length >= 8; length -= 8)
		if (*bytes++ != *in++)
			return 0;
	return !length || !((*bytes ^ *in) >> (8 - length));
}

/* Where the bytes of the peer's address are; *@bits says how many count. NULL: any peer. */
static const unsigned char *peer_bytes(int *bits)
{
	const struct sockaddr_in *in = (struct sockaddr_in *)&key.addr;
	const struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&key.addr;
	int all = key.addr.ss_family == AF_INET ? 32 : 128;

	if (!(key.flags & TCP_AUTHOPT_KEY_ADDR_BIND))
		return NULL;
	*bits = key.flags & TCP_AUTHOPT_KEY_PREFIXLEN ? key.prefixlen : all;
	return all == 32 ? (const unsigned char *)&in->sin_addr : in6->sin6_addr.s6_addr;
}

/* Whether a connection with this address at an end matches, as far as that end is concerned. */
static int matches_end(const char *text, const unsigned char *in, int bits, int family)
{
	unsigned char bytes[16], mapped[16] = { [10] = 0xff, [11] = 0xff };
	int of_it = parse_address(text, bytes);

	if (!in)
		return 1;
	/* To a policy IPv4 is in no IPv6 prefix that is more than that of mapped addresses. */
	if (of_it == AF_INET && family == AF_INET6) {
		memcpy(mapped + 12, bytes, 4);
		return bits >= 96 && is_within(mapped, in, bits);
	}
	return of_it == family && is_within(bytes, in, bits);
}

/* The SSH_CONNECTION of this process, or of the next one above it that has one. */
static int find_session(char *session, size_t size)
{
	pid_t pid = getpid();

	while (pid > 0) {
		char name[64], text[65536], *at, *end;
		size_t length;
		FILE *file;

		snprintf(name, sizeof(name), "/proc/%d/environ", (int)pid);
		file = fopen(name, "re");
		length = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
		if (file)
			fclose(file);
		text[length] = '\0';
		for (at = text, end = text + length; at < end; at += strlen(at) + 1) {
			if (strncmp(at, "SSH_CONNECTION=", 15))
				continue;
			snprintf(session, size, "%s", at + 15);
			return 1;
		}
		snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
		file = fopen(name, "re");
		if (!file)
			return 0;
		length = fread(text, 1, sizeof(text) - 1, file);
		fclose(file);
		text[length] = '\0';
		at = strrchr(text, ')');
		if (!at || sscanf(at + 1, " %*c %d", &pid) != 1)
			return 0;
	}
	return 0;
}

static void check_lock_out(void)
{
	int bits = 0, family = key.addr.ss_family, has_port = key.flags & TCP_AUTHOPT_KEY_SERVICE_PORT;
	const unsigned char *peer = peer_bytes(&bits);
	int local_bits = key.flags & TCP_AUTHOPT_KEY_LOCAL_PREFIXLEN ? key.local_prefixlen :
			 family == AF_INET ? 32 : 128;
	const unsigned char *local = key.flags & TCP_AUTHOPT_KEY_LOCAL_ADDR ? key.local : NULL;
	static const unsigned char v4[] = { 127 }, mapped[16] = { [10] = 0xff, [11] = 0xff, [12] = 127 };
	char session[256], from[64], to[64];
	int from_port, to_port, wide = 0;

	if (find_session(session, sizeof(session)) &&
	    sscanf(session, "%63s %d %63s %d", from, &from_port, to, &to_port) == 4 &&
	    matches_end(from, peer, bits, family) && matches_end(to, local, local_bits, family) &&
	    (!has_port || key.service_port == from_port || key.service_port == to_port))
		die("this is the session that you type in, from %s: it would stay, but the next one "
		    "would not be let in; --force if you mean it", from);
	if (has_port)
		return;
	if (!peer || (family == AF_INET && is_within(v4, peer, bits < 8 ? bits : 8)) ||
	    matches_end("::1", peer, bits, family) ||
	    (family == AF_INET6 && bits >= 96 && is_within(mapped, peer, bits < 104 ? bits : 104)))
		die("this is loopback, too: programs of this machine could not talk to each other; name a "
		    "port, or --force if you mean it");
	if (IN6_IS_ADDR_V4MAPPED((struct in6_addr *)peer) && family == AF_INET6)
		wide = bits < 96 + 16;
	else
		wide = bits < (family == AF_INET ? 16 : 32);
	if (wide)
		die("these are many peers, for all that they do: name a port, such as 179, or --force if you "
		    "mean it");
}

/* ---- keys ---- */

/* What a file says is the administrator's alone to say; and of a key, to know. */
static void check_modes(const char *name, int fd, int is_secret)
{
	struct stat is;

	if (fstat(fd, &is))
		die("%s: %s", name, strerror(errno));
	if (!S_ISREG(is.st_mode))
		die("%s: not a regular file", name);
	if (is.st_uid && is.st_uid != geteuid())
		die("%s: belongs to another user, who could change it; \"chown root %s\"", name, name);
	if (is.st_mode & (is_secret ? 077 : 022))
		die("%s: its mode is %04o, so that others could %s it; \"chmod %s %s\"", name,
		    is.st_mode & 07777, is_secret ? "read or change" : "change",
		    is_secret ? "go-rwx" : "go-w", name);
}

/* What another program may count as part of the key, and the next one not, is refused. */
static void check_text(const unsigned char *text, size_t length)
{
	const unsigned char *newline = memchr(text, '\n', length);
	size_t i;

	if (memchr(text, '\r', length))
		die("the key has a carriage return: its lines end as on Windows, by CRLF; "
		    "\"tr -d '\\r'\" takes that out");
	if (newline) {
		for (i = newline - text; i < length && text[i] == '\n'; i++)
			;
		die("there %s: the key is one line, and one newline at its end is not part of it",
		    i == length ? "are empty lines at the end" : "is more than one line");
	}
	if (length && (isblank(text[0]) || isblank(text[length - 1])))
		die("the key %s with a blank; if that is part of it, write it in hex",
		    isblank(text[0]) ? "begins" : "ends");
	for (i = 0; i < length; i++)
		if (iscntrl(text[i]))
			die("byte %zu of the key is a control character; a key that is not text is written "
			    "in hex", i + 1);
}

static int hex_digit(int c)
{
	if (!isxdigit(c))
		die("the key has something else in it than hexadecimal digits");
	return isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
}

/*
 * Fills key.key from FILE, or from standard input if that is NULL (RFC 5926 3.1, R34). In a file of
 * entries it is a regular file, and must not hold up the others if it is none.
 */
static void read_key(const char *file, int hex)
{
	static unsigned char text[4096]; /* room to see what is wrong */
	static int fd = -1; /* that of the last key, if that was wrong */
	unsigned char *begin = text;
	size_t length = 0, i;
	ssize_t got = 1;

	prctl(PR_SET_DUMPABLE, 0); /* a core would have the key in it */
	if (fd > STDIN_FILENO)
		close(fd);
	fd = file ? open(file, O_RDONLY | O_CLOEXEC | (file_line ? O_NONBLOCK : 0)) : STDIN_FILENO;
	if (fd < 0)
		die("%s: %s", file, strerror(errno));
	if (!file && isatty(fd))
		die("a key is not typed in for all to see: use key-file, or a pipe");
	if (file_line)
		check_modes(file, fd, 1);
	while (got > 0 && length < sizeof(text)) {
		got = read(fd, text + length, sizeof(text) - length);
		if (got < 0)
			die("%s: %s", file ? file : "standard input", strerror(errno));
		length += got;
	}
	close(fd);
	fd = -1;
	if (length >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		die("the key begins with a byte-order mark (UTF-8), which an editor has written; "
		    "\"sed '1s/^\\xef\\xbb\\xbf//'\" takes it out");
	if (length >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
		die("the key begins with a byte-order mark: it is UTF-16; \"iconv -f UTF-16 -t UTF-8\" "
		    "makes bytes of it that the peer may have, too");
	if (hex) {
		while (length && isspace(begin[length - 1]))
			length--;
		for (; length && isspace(*begin); begin++)
			length--;
	} else {
		if (length && begin[length - 1] == '\n')
			length--;
		check_text(begin, length);
	}
	if (!length)
		die("the key is empty");
	if (length > (hex ? 2 : 1) * sizeof(key.key))
		die("the key is longer than %zu bytes", sizeof(key.key));

	if (hex) {
		for (i = 0; i < length; i++)
			hex_digit(begin[i]);
		if (length % 2)
			die("the key has an odd number of hexadecimal digits, %zu", length);
		for (i = 0; i < length; i += 2)
			key.key[i / 2] = hex_digit(begin[i]) << 4 | hex_digit(begin[i + 1]);
		length /= 2;
	} else {
		memcpy(key.key, begin, length);
	}
	key.keylen = length;
	explicit_bzero(text, sizeof(text));
}

static const char *const words_with_value[] = {
	"send-id", "recv-id", "algorithm", "key-file", "send-from", "send-until", "accept-from",
	"accept-until", "local", "port", "vrf",
};

static int takes_value(const char *word)
{
	size_t i;

	for (i = 0; i < sizeof(words_with_value) / sizeof(words_with_value[0]); i++)
		if (!strcmp(word, words_with_value[i]))
			return 1;
	return 0;
}

static void check_word(const char *word, const char *value)
{
	if (takes_value(word)) {
		if (!value)
			die("%s lacks a value; see \"tcp-authopt-key help\"", word);
	} else if (strcmp(word, "hex") && strcmp(word, "exclude-options") && strcmp(word, "strict") &&
		   strcmp(word, "accept-icmp") && strcmp(word, "policy") && strcmp(word, "--force")) {
		die("unknown word %s; see \"tcp-authopt-key help\"", word);
	}
}

/* What the first word asks for, in flags of a key; -1: it asks for nothing. */
static int parse_command(const char *word)
{
	static const struct {
		const char *word;
		int flags;
	} commands[] = {
		{ "add", 0 },
		{ "del", TCP_AUTHOPT_KEY_DEL },
		{ "require", TCP_AUTHOPT_KEY_REQUIRE },
		{ "exempt", TCP_AUTHOPT_KEY_EXEMPT },
	};
	size_t i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(word, commands[i].word))
			return commands[i].flags;
	return -1;
}

/* A word that belongs to a key, or to a policy, has no place in the other one. */
static void check_kind(const char *word, int is_policy)
{
	static const char *const anywhere[] = { "local", "port", "vrf", "policy" };
	static const char *const of_policies[] = { "strict", "accept-icmp", "--force" };
	size_t i;
	int fits = !is_policy;

	if (!strcmp(word, "policy") && !(key.flags & TCP_AUTHOPT_KEY_DEL))
		die("policy: this is for \"del\" only; see \"tcp-authopt-key help\"");
	for (i = 0; i < sizeof(anywhere) / sizeof(anywhere[0]); i++)
		if (!strcmp(word, anywhere[i]))
			return;
	for (i = 0; i < sizeof(of_policies) / sizeof(of_policies[0]); i++)
		if (!strcmp(word, of_policies[i]))
			fits = is_policy && key.flags & TCP_AUTHOPT_KEY_REQUIRE;
	if (!fits)
		die("%s: %s; see \"tcp-authopt-key help\"", word,
		    is_policy ? "this is not for a policy" : "this is for \"require\" only");
}

/* Where a key is to be read: its file, or NULL for standard input. */
struct source {
	const char *file;
	int hex;
};

/* A deletion needs no key, and a policy has none. */
static int has_key(void)
{
	return !(key.flags & (TCP_AUTHOPT_KEY_REQUIRE | TCP_AUTHOPT_KEY_EXEMPT | TCP_AUTHOPT_KEY_DEL));
}

/*
 * Fills the key, but for its bytes, from the words of a command, of which the first is the program's
 * name. Gives where the bytes are.
 */
static struct source parse(int argc, char **argv)
{
	struct source source = { NULL, 0 };
	int send_id = -1, recv_id = -1, force = 0, is_policy = 0;
	int flags = parse_command(argv[1]), i, j;

	memset(&key, 0, sizeof(key));
	for (i = 3; i < argc; i++)
		if (flags == TCP_AUTHOPT_KEY_DEL && !strcmp(argv[i], "policy"))
			flags |= TCP_AUTHOPT_KEY_REQUIRE;
	is_policy = flags & (TCP_AUTHOPT_KEY_REQUIRE | TCP_AUTHOPT_KEY_EXEMPT);
	key.flags = flags;
	if (!is_policy)
		key.alg = TCP_AUTHOPT_ALG_HMAC_SHA_1_96;
	parse_peer(argv[2]);

	for (i = 3; i < argc; i++) {
		const char *word = argv[i], *value = argv[i + 1];

		check_word(word, value);
		check_kind(word, is_policy);
		for (j = 3; j < i; j += takes_value(argv[j]) ? 2 : 1)
			if (!strcmp(word, argv[j]))
				die("%s is given twice", word);
		if (!strcmp(word, "hex")) {
			source.hex = 1;
			continue;
		} else if (!strcmp(word, "exclude-options")) {
			key.flags |= TCP_AUTHOPT_KEY_EXCLUDE_OPTS;
			continue;
		} else if (!strcmp(word, "strict")) {
			key.flags |= TCP_AUTHOPT_KEY_STRICT;
			continue;
		} else if (!strcmp(word, "accept-icmp")) {
			key.flags |= TCP_AUTHOPT_KEY_ACCEPT_ICMP;
			continue;
		} else if (!strcmp(word, "--force")) {
			force = 1;
			continue;
		} else if (!strcmp(word, "policy")) {
			continue;
		}
		if (!strcmp(word, "send-id")) {
			send_id = parse_number(word, value, 255);
		} else if (!strcmp(word, "recv-id")) {
			recv_id = parse_number(word, value, 255);
		} else if (!strcmp(word, "algorithm")) {
			key.alg = parse_algorithm(value);
		} else if (!strcmp(word, "key-file")) {
			source.file = value;
		} else if (!strcmp(word, "local")) {
			parse_local(value);
		} else if (!strcmp(word, "port")) {
			parse_port(value);
		} else if (!strcmp(word, "vrf")) {
			parse_vrf(value);
		} else if (!strcmp(word, "send-from")) {
			key.flags |= TCP_AUTHOPT_KEY_SEND_LIFETIME_BEGIN;
			key.send_lifetime_begin = parse_time(word, value);
		} else if (!strcmp(word, "send-until")) {
			key.flags |= TCP_AUTHOPT_KEY_SEND_LIFETIME_END;
			key.send_lifetime_end = parse_time(word, value);
		} else if (!strcmp(word, "accept-from")) {
			key.flags |= TCP_AUTHOPT_KEY_RECV_LIFETIME_BEGIN;
			key.recv_lifetime_begin = parse_time(word, value);
		} else { /* accept-until */
			key.flags |= TCP_AUTHOPT_KEY_RECV_LIFETIME_END;
			key.recv_lifetime_end = parse_time(word, value);
		}
		i++;
	}
	if (!is_policy && (send_id < 0 || recv_id < 0))
		die("%s is needed: the ids are the KeyIDs of segments sent and received",
		    send_id < 0 ? "send-id" : "recv-id");
	if (!is_policy) {
		key.send_id = send_id;
		key.recv_id = recv_id;
	}
	if (flags == TCP_AUTHOPT_KEY_REQUIRE && !force)
		check_lock_out();
	check_lifetime("send", TCP_AUTHOPT_KEY_SEND_LIFETIME_BEGIN, key.send_lifetime_begin,
		       TCP_AUTHOPT_KEY_SEND_LIFETIME_END, key.send_lifetime_end);
	check_lifetime("accept", TCP_AUTHOPT_KEY_RECV_LIFETIME_BEGIN, key.recv_lifetime_begin,
		       TCP_AUTHOPT_KEY_RECV_LIFETIME_END, key.recv_lifetime_end);
	if (has_key() && file_line && (!source.file || *source.file != '/'))
		die("in a file a key needs \"key-file\", and a path that begins with /");
	return source;
}

/* Without it the kernel's own TCP-AO would get the call. */
static void check_module(void)
{
	if (access("/proc/net/tcp_authopt", F_OK))
		die("the module tcp_authopt is not loaded: \"modprobe tcp_authopt\" (insmod, where it was built)");
}

/* Hands the key or policy to the module. */
static void give(void)
{
	int is_policy = key.flags & (TCP_AUTHOPT_KEY_REQUIRE | TCP_AUTHOPT_KEY_EXEMPT);
	int fd = socket(key.addr.ss_family ?: AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	error = setsockopt(fd, IPPROTO_TCP, TCP_AUTHOPT_KEY, &key, sizeof(key)) ? errno : 0;
	close(fd);
	explicit_bzero(key.key, sizeof(key.key));
	if (!error)
		return;
	if (error == EPERM)
		die("not permitted: needs net.ipv4.tcp_authopt=1, and CAP_NET_ADMIN");
	if (error == ENOENT && is_policy)
		die("there is no such policy: PEER and WHERE have to be as when it was added");
	if (error == ENODEV)
		die("the module is being drained or unloaded");
	if (error == ENOENT)
		die("there is no such key: PEER, WHERE and both ids have to be as when it was added");
	if (error == EEXIST)
		die("another key for this peer has one of these ids: delete it first, or take others");
	if (error == ENOSPC)
		die("there are as many as may be: in all (net.ipv4.tcp_authopt_max_keys), 512 keys of "
		    "one PEER and WHERE, or 64 combinations of what PEER and WHERE consist of");
	if (error == EINVAL)
		die("the module does not know such a %s: is a version loaded that is older than this "
		    "program?", is_policy ? "policy" : "key");
	die("the module refuses the %s: %s", is_policy ? "policy" : "key", strerror(error));
}

/* ---- files ---- */

struct entry {
	unsigned int line;
	struct tcp_authopt_key key; /* without its bytes */
	struct source source;
};

static struct entry *entries;
static size_t number;

/* What was wrong: a key that was understood, or anything else, which may have been a policy. */
static int keys_failed, others_failed;

/* Takes a line apart and adds what it says to the entries. */
static void parse_line(char *text, size_t length)
{
	char *words[64] = { "tcp-authopt-key" }, *rest = text;
	struct entry entry = { .line = file_line };
	struct entry *more;
	int count = 1;

	if (strlen(text) != length)
		die("the line has a zero byte: this is no text");
	if (file_line == 1 && !strncmp(text, "\xef\xbb\xbf", 3))
		die("the file begins with a byte-order mark (UTF-8), which an editor has written; "
		    "\"sed -i '1s/^\\xef\\xbb\\xbf//'\" takes it out");
	if (strchr(text, '\r'))
		die("the line has a carriage return: lines end as on Windows, by CRLF; \"sed -i 's/\\r$//'\" "
		    "takes that out");
	if (!length || text[length - 1] != '\n')
		die("the file ends within this line, or a newline is missing: was all of it written?");
	text[length - 1] = '\0';
	while ((words[count] = strtok_r(rest, " \t", &rest)) && *words[count] != '#') {
		if (strchr(words[count], '#') && strcmp(words[count - 1], "key-file"))
			die("%s: a comment begins with a blank and a #", words[count]);
		if (++count == sizeof(words) / sizeof(words[0]) - 1)
			die("these are more words than any command has");
	}
	words[count] = NULL;
	if (count == 1)
		return;
	if (parse_command(words[1]) < 0 || parse_command(words[1]) & TCP_AUTHOPT_KEY_DEL)
		die("%s: neither add, require nor exempt, which are what a file can say", words[1]);
	if (count == 2)
		die("%s lacks a PEER", words[1]);
	entry.source = parse(count, words);
	entry.key = key;
	if (entry.source.file)
		entry.source.file = strdup(entry.source.file);
	more = reallocarray(entries, number + 1, sizeof(*entries));
	entries = more ?: entries;
	if (!more || (has_key() && !entry.source.file))
		die("there is no memory for this line");
	entries[number++] = entry;
}

static void parse_file(FILE *file)
{
	static char *text;
	static size_t size;
	static unsigned int line; /* all static, as the errors jump */
	ssize_t length;

	while ((length = getline(&text, &size, file)) >= 0) {
		file_line = ++line;
		if (!setjmp(line_is_wrong))
			parse_line(text, length);
		else
			others_failed = 1;
	}
	file_line = line + 1;
	/* Of a line for which it has no memory getline() tells by its result only. */
	if (!setjmp(line_is_wrong)) {
		if (!feof(file))
			die("%s; this line and all behind it are not read", strerror(errno));
		if (!line)
			die("the file is empty: one that is to say nothing has a comment");
	} else {
		others_failed = 1;
	}
	file_line = 0;
}

/* Adds all policies, or reads all keys and adds them. */
static void give_all(int keys, int only_check)
{
	static size_t i;

	for (i = 0; i < number; i++) {
		key = entries[i].key;
		if (has_key() != keys)
			continue;
		file_line = entries[i].line;
		if (!setjmp(line_is_wrong)) {
			if (keys)
				read_key(entries[i].source.file, entries[i].source.hex);
			if (!only_check)
				give();
		} else if (keys) {
			keys_failed = 1;
		} else {
			others_failed = 1;
		}
	}
	file_line = 0;
}

/*
 * The policies go first, and before any key is read, so that nothing is unsigned for as long as the
 * rest takes, or where some of it is wrong. They go in their order: of two with the same criteria the
 * later one counts, as if they had been typed.
 */
static int do_file(const char *name, int only_check)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (!file)
		die("%s: %s", name, strerror(errno));
	check_modes(name, fd, 0);
	/* Who reads what is wrong may have ended; that holds up nothing either. */
	signal(SIGPIPE, SIG_IGN);
	file_name = name;
	parse_file(file);
	fclose(file);
	if (!only_check)
		check_module();
	give_all(0, only_check);
	give_all(1, only_check);
	return others_failed ? 1 : keys_failed ? 3 : 0;
}

int main(int argc, char **argv)
{
	int is_file = argc > 1 && (!strcmp(argv[1], "load") || !strcmp(argv[1], "check"));
	int is_known = is_file || (argc > 1 && parse_command(argv[1]) >= 0);
	struct source source;

	if (argc == 2 && (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc > 1 && !is_known)
		fprintf(stderr, "tcp-authopt-key: %s: neither add, del, require, exempt, load nor check\n\n",
			argv[1]);
	else if (argc == 2)
		fprintf(stderr, "tcp-authopt-key: %s lacks a %s\n\n", argv[1], is_file ? "FILE" : "PEER");
	else if (argc > 3 && is_file)
		fprintf(stderr, "tcp-authopt-key: %s is for one FILE\n\n", argv[1]);
	if (argc < 3 || !is_known || (argc > 3 && is_file)) {
		fputs(usage, stderr);
		return 2;
	}
	if (is_file)
		return do_file(argv[2], !strcmp(argv[1], "check"));
	source = parse(argc, argv);
	if (has_key())
		read_key(source.file, source.hex);
	check_module();
	give();
	return 0;
}
