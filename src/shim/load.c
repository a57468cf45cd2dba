// SPDX-License-Identifier: GPL-2.0
/*
 * What is set up when the module loads, and taken down when it is unloaded. Rust does it in this
 * order, and the hooks come last (src/module.rs).
 */
#include <net/secure_seq.h>
#include "conn.h"
#include "load.h"
#include "net.h"
#include "seam.h"
#include "sysctl.h"
#include "tables.h"
#include "wake.h"

int tao_load_namespaces(void)
{
	int err = tao_net_init();

	if (err)
		return err;
	err = tao_sysctl_init();
	if (err)
		tao_net_exit();
	return err;
}

void tao_unload_namespaces(void)
{
	tao_sysctl_exit();
	tao_net_exit();
}

int tao_load_conns(void)
{
	tao_tables_init(&tao_af_ops);
	/*
	 * The secret of ISNs is made at its first use, under a lock that sleeps on PREEMPT_RT. That
	 * must not be in tao_before_conn_request().
	 */
	secure_tcp_seq_and_ts_off(&init_net, 0, 0, 0, 0);
	return tao_conns_init();
}

/* The hooks are gone, and no state is attached. */
void tao_unload_conns(void)
{
	tao_conns_exit();
	tao_wake_exit();
}
