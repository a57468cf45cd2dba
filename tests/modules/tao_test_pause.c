// SPDX-License-Identifier: GPL-2.0
/*
 * Makes a function wait before it returns: once, without sleeping, until it is let go or the
 * deadline has passed.
 */
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/module.h>

static char *function = "";
module_param(function, charp, 0);
MODULE_PARM_DESC(function, "the name of the function");

static bool waits;
module_param(waits, bool, 0400);
MODULE_PARM_DESC(waits, "whether somebody does");

static bool go;
module_param(go, bool, 0600);
MODULE_PARM_DESC(go, "whether they may go on");

static int pause_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	unsigned long deadline = jiffies + 20 * HZ;

	if (xchg(&waits, true))
		return 0;
	while (!READ_ONCE(go) && time_before(jiffies, deadline))
		cpu_relax();
	return 0;
}

static struct kretprobe probe = { .handler = pause_return };

static int __init pause_init(void)
{
	probe.kp.symbol_name = function;
	return register_kretprobe(&probe);
}
module_init(pause_init);

static void __exit pause_exit(void)
{
	unregister_kretprobe(&probe);
}
module_exit(pause_exit);

MODULE_DESCRIPTION("Makes a function wait, for tests");
MODULE_LICENSE("GPL");
