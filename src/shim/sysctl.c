// SPDX-License-Identifier: GPL-2.0
/* The sysctls of the machine. Those of a namespace are in net.c. */
#include <linux/capability.h>
#include <linux/sysctl.h>
#include <net/net_namespace.h>
#include "drain.h"
#include "sysctl.h"

static int tao_sysctl_enabled;

bool tao_enabled(void)
{
	return READ_ONCE(tao_sysctl_enabled);
}

static int tao_sysctl_drain;

/* A drain ends connections of all namespaces, so that it is not for the root of one. */
static int tao_drain_handler(const struct ctl_table *table, int write, void *buffer, size_t *lenp,
			     loff_t *ppos)
{
	int err;

	if (write && !capable(CAP_NET_ADMIN))
		return -EPERM;
	err = proc_dointvec_minmax(table, write, buffer, lenp, ppos);
	return !err && write && READ_ONCE(tao_sysctl_drain) ? tao_drain() : err;
}

/*
 * Each has its own value as its minimum, so that 1 stays 1. The table is not const, since kernels
 * before 7.3 take none that is.
 */
static struct ctl_table tao_global_table[] = {
	{
		.procname	= "tcp_authopt",
		.data		= &tao_sysctl_enabled,
		.maxlen		= sizeof(tao_sysctl_enabled),
		.mode		= 0644,
		.proc_handler	= proc_dointvec_minmax,
		.extra1		= &tao_sysctl_enabled,
		.extra2		= SYSCTL_ONE,
	},
	{
		.procname	= "tcp_authopt_drain",
		.data		= &tao_sysctl_drain,
		.maxlen		= sizeof(tao_sysctl_drain),
		.mode		= 0644,
		.proc_handler	= tao_drain_handler,
		.extra1		= &tao_sysctl_drain,
		.extra2		= SYSCTL_ONE,
	},
};

static struct ctl_table_header *tao_global_sysctls;

int tao_sysctl_init(void)
{
	tao_global_sysctls = register_net_sysctl(&init_net, "net/ipv4", tao_global_table);
	return tao_global_sysctls ? 0 : -ENOMEM;
}

void tao_sysctl_exit(void)
{
	unregister_net_sysctl_table(tao_global_sysctls);
}
