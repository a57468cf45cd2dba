// SPDX-License-Identifier: GPL-2.0
/* Network namespaces: their keys, VRFs, /proc/net/tcp_authopt and their sysctls. */
#include <linux/netdevice.h>
#include <linux/proc_fs.h>
#include <linux/rtnetlink.h>
#include <linux/seq_file.h>
#include <linux/sysctl.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include "net.h"
#include "rust.h"

/**
 * struct tao_pernet - what the module has in a namespace
 * @net: its keys, Rust's. Sockets hold references of their own.
 * @stand_in: see standin.c
 * @old_stand_in: the same, once the namespace goes
 * @sysctls: header of its sysctls
 */
struct tao_pernet {
	struct tao_net		*net;
	struct tao_conn		*stand_in, *old_stand_in;
	struct ctl_table_header	*sysctls;
	struct ctl_table	table[5];
};

static unsigned int tao_net_id;

DEFINE_STATIC_KEY_FALSE(tao_has_stand_in);

struct tao_net *tao_net_get(struct net *net)
{
	return ((struct tao_pernet *)net_generic(net, tao_net_id))->net;
}

/* Published once, and then for as long as the namespace lives. */
struct tao_conn *tao_net_stand_in(struct net *net)
{
	return smp_load_acquire(&((struct tao_pernet *)net_generic(net, tao_net_id))->stand_in);
}

int tao_net_make_stand_in(struct net *net)
{
	struct tao_pernet *pernet = net_generic(net, tao_net_id);
	static DEFINE_MUTEX(lock);
	struct tao_conn *conn;

	guard(mutex)(&lock);
	if (pernet->stand_in)
		return 0;
	conn = tao_rust_stand_in(pernet->net);
	if (!conn)
		return -ENOMEM;
	smp_store_release(&pernet->stand_in, conn);
	static_branch_enable(&tao_has_stand_in);
	return 0;
}

/* ---- VRFs ---- */

/* The VRF with this device, as keys name it. The namespace has sockets, so that it lives. */
__u32 tao_vrf_at(struct net *net, __u32 l3index)
{
	return tao_rust_vrf_at(tao_net_get(net), l3index);
}

/*
 * L3 masters come and go, under RTNL. A namespace's devices come after tao_pernet_init() and go
 * before tao_pernet_exit(), since devices are the last that a namespace gets.
 */
static int tao_device_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	const struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct tao_net *net;
	int err = 0;

	ASSERT_RTNL();
	/*
	 * Whoever holds a device that has gone is reminded of that here. The index of the device
	 * may be another's by now.
	 */
	if (!netif_is_l3_master(dev) || dev->reg_state == NETREG_UNREGISTERED)
		return NOTIFY_DONE;
	net = tao_net_get(dev_net(dev));
	switch (event) {
	case NETDEV_REGISTER:
		err = tao_rust_vrf_added(net, dev->ifindex, dev->name);
		break;
	case NETDEV_UNREGISTER:
		tao_rust_vrf_gone(net, dev->ifindex);
		break;
	case NETDEV_CHANGENAME:
		err = tao_rust_vrf_renamed(net, dev->ifindex, dev->name);
		break;
	}
	return notifier_from_errno(err);
}

static struct notifier_block tao_devices = {
	.notifier_call = tao_device_event,
};

/* ---- /proc/net ---- */

/*
 * Longest line, one of an entry: 7 for its kind, 4 for each of 15 bytes of a name, 2 of 39 and "/128",
 * 5 for a port, 3 + 3 + 1, "0x" and 8, 4 of 20 for times, 2 of 9, 14 tabs, newline.
 */
#define TAO_LINE_MAX	320

static const char *const tao_files[] = {
	[TAO_FILE_KEYS]		= "tcp_authopt",
	[TAO_FILE_ENTRIES]	= "tcp_authopt_entries",
	[TAO_FILE_COUNTERS]	= "tcp_authopt_counters",
};

static enum tao_file tao_file_of(const struct seq_file *m)
{
	return (unsigned long)pde_data(file_inode(m->file));
}

/* Position 0 is the heading; the others are up to Rust. */
static void *tao_seq_at(struct seq_file *m, loff_t *pos)
{
	u64 at = *pos ? tao_rust_proc_position(tao_net_get(seq_file_net(m)), tao_file_of(m), *pos) : 0;

	if (*pos && !at)
		return NULL;
	*pos = at;
	return pos;
}

static void *tao_seq_start(struct seq_file *m, loff_t *pos)
{
	return tao_seq_at(m, pos);
}

static void *tao_seq_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return tao_seq_at(m, pos);
}

static void tao_seq_stop(struct seq_file *m, void *v)
{
}

static int tao_seq_show(struct seq_file *m, void *v)
{
	u8 line[TAO_LINE_MAX];

	seq_write(m, line, tao_rust_proc_line(tao_net_get(seq_file_net(m)), tao_file_of(m),
					      *(loff_t *)v, line, sizeof(line)));
	return 0;
}

static const struct seq_operations tao_seq_ops = {
	.start = tao_seq_start,
	.next = tao_seq_next,
	.stop = tao_seq_stop,
	.show = tao_seq_show,
};

static void tao_files_remove(struct net *net, size_t count)
{
	while (count--)
		remove_proc_entry(tao_files[count], net->proc_net);
}

static int tao_files_add(struct net *net)
{
	for (size_t i = 0; i < ARRAY_SIZE(tao_files); i++) {
		if (!proc_create_net_data(tao_files[i], 0400, net->proc_net, &tao_seq_ops,
					  sizeof(struct seq_net_private), (void *)i)) {
			tao_files_remove(net, i);
			return -ENOMEM;
		}
	}
	return 0;
}

/* ---- sysctls ---- */

/* A namespace's own root does not set how much kernel memory it may use. */
static int tao_max_keys_handler(const struct ctl_table *table, int write, void *buffer,
				size_t *lenp, loff_t *ppos)
{
	if (write && !capable(CAP_NET_ADMIN))
		return -EPERM;
	return proc_douintvec(table, write, buffer, lenp, ppos);
}

/* It is a day, since clocks that differ by more are wrong. */
static unsigned int tao_max_tolerance = 86400;

/* Connections go on with the key that was chosen until they are told to choose again. */
static int tao_preference_handler(const struct ctl_table *table, int write, void *buffer,
			      size_t *lenp, loff_t *ppos)
{
	struct ctl_table range = *table;
	int err;

	range.extra1 = SYSCTL_ZERO;
	err = proc_douintvec_minmax(&range, write, buffer, lenp, ppos);
	if (!err && write)
		tao_rust_net_choose_again(table->extra1);
	return err;
}

/* It is an hour: whoever wants to wait longer does not want to be told. */
static int tao_max_grace = 3600;

static int tao_sysctls_add(struct net *net, struct tao_pernet *pernet)
{
	struct tao_net_values values = tao_rust_net_values(pernet->net);

	pernet->table[0] = (struct ctl_table) {
		.procname	= "tcp_authopt_key_overlap",
		.data		= values.key_overlap,
		.maxlen		= sizeof(u32),
		.mode		= 0644,
		.proc_handler	= proc_douintvec_minmax,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_ONE,
	};
	pernet->table[1] = (struct ctl_table) {
		.procname	= "tcp_authopt_max_keys",
		.data		= values.max_keys,
		.maxlen		= sizeof(u32),
		.mode		= 0644,
		.proc_handler	= tao_max_keys_handler,
	};
	pernet->table[2] = (struct ctl_table) {
		.procname	= "tcp_authopt_rollover_rule",
		.data		= values.rollover_rule,
		.maxlen		= sizeof(u32),
		.mode		= 0644,
		.proc_handler	= tao_preference_handler,
		.extra1		= pernet->net,
		.extra2		= SYSCTL_ONE,
	};
	pernet->table[3] = (struct ctl_table) {
		.procname	= "tcp_authopt_accept_tolerance",
		.data		= values.accept_tolerance,
		.maxlen		= sizeof(u32),
		.mode		= 0644,
		.proc_handler	= tao_preference_handler,
		.extra1		= pernet->net,
		.extra2		= &tao_max_tolerance,
	};
	pernet->table[4] = (struct ctl_table) {
		.procname	= "tcp_authopt_no_key_grace",
		.data		= values.no_key_grace,
		.maxlen		= sizeof(s32),
		.mode		= 0644,
		.proc_handler	= proc_dointvec_minmax,
		.extra1		= SYSCTL_NEG_ONE,
		.extra2		= &tao_max_grace,
	};
	pernet->sysctls = register_net_sysctl_sz(net, "net/ipv4", pernet->table,
						 ARRAY_SIZE(pernet->table));
	return pernet->sysctls ? 0 : -ENOMEM;
}

/* ---- namespaces ---- */

static int __net_init tao_pernet_init(struct net *net)
{
	struct tao_pernet *pernet = net_generic(net, tao_net_id);

	pernet->net = tao_rust_net_new();
	if (!pernet->net)
		return -ENOMEM;
	if (tao_sysctls_add(net, pernet))
		goto free;
	if (!tao_files_add(net))
		return 0;
	unregister_net_sysctl_table(pernet->sysctls);
free:
	tao_rust_net_free(pernet->net);
	return -ENOMEM;
}

/* A grace period passes between this and the exit. */
static void __net_exit tao_pernet_pre_exit(struct net *net)
{
	struct tao_pernet *pernet = net_generic(net, tao_net_id);

	tao_rust_net_hide(pernet->net);
	pernet->old_stand_in = xchg(&pernet->stand_in, NULL);
}

static void __net_exit tao_pernet_exit(struct net *net)
{
	struct tao_pernet *pernet = net_generic(net, tao_net_id);

	tao_files_remove(net, ARRAY_SIZE(tao_files));
	unregister_net_sysctl_table(pernet->sysctls);
	if (pernet->old_stand_in)
		tao_rust_conn_free(pernet->old_stand_in);
	tao_rust_net_free(pernet->net);
}

static struct pernet_operations tao_pernet_ops = {
	.init = tao_pernet_init,
	.pre_exit = tao_pernet_pre_exit,
	.exit = tao_pernet_exit,
	.id = &tao_net_id,
	.size = sizeof(struct tao_pernet),
};

int tao_net_init(void)
{
	int err = register_pernet_subsys(&tao_pernet_ops);

	if (err)
		return err;
	/* Tells of the devices that are there, too. */
	err = register_netdevice_notifier(&tao_devices);
	if (err)
		unregister_pernet_subsys(&tao_pernet_ops);
	return err;
}

void tao_net_exit(void)
{
	unregister_netdevice_notifier(&tao_devices);
	unregister_pernet_subsys(&tao_pernet_ops);
}
