// SPDX-License-Identifier: GPL-2.0
/*
 * Has modules that read the first instruction of a function of the kernel read another one: what
 * they would find if ftrace had not changed it, or somebody else had, too. The kernel itself, ftrace
 * above all, reads what is there.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

static char *function = "";
module_param(function, charp, 0);
MODULE_PARM_DESC(function, "the name of the function");

static char *found = "";
module_param(found, charp, 0);
MODULE_PARM_DESC(found, "nop, breakpoint, call (into this module) or jump (into the kernel)");

static int times = INT_MAX;
module_param(times, int, 0600);
MODULE_PARM_DESC(times, "how often, counted down");

static struct kprobe probe = { .flags = KPROBE_FLAG_DISABLED };
static u8 site[5];

static long read_site(void *to, const void *from, size_t size)
{
	memcpy(to, site, min(size, sizeof(site)));
	return 0;
}

static void notrace site_call(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			      struct ftrace_regs *fregs)
{
	if (parent_ip < MODULES_VADDR ||
	    (void *)ftrace_regs_get_argument(fregs, 1) != probe.addr || times <= 0)
		return;
	times--;
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)read_site);
}

static struct ftrace_ops site_ops = { .func = site_call, .flags = FTRACE_OPS_FL_IPMODIFY };

static int make_site(void)
{
	static const u8 nop[] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };

	if (!strcmp(found, "nop")) {
		memcpy(site, nop, sizeof(site));
	} else if (!strcmp(found, "breakpoint")) {
		site[0] = 0xcc;
	} else if (!strcmp(found, "call")) {
		site[0] = 0xe8;
		put_unaligned_le32((u8 *)read_site - (u8 *)probe.addr - sizeof(site), &site[1]);
	} else if (!strcmp(found, "jump")) {
		site[0] = 0xe9;
	} else {
		return -EINVAL;
	}
	return 0;
}

static int __init site_init(void)
{
	static char reader[] = "copy_from_kernel_nofault";
	int err;

	probe.symbol_name = function;
	err = register_kprobe(&probe);
	if (err)
		return err;
	unregister_kprobe(&probe);
	err = make_site();
	if (!err)
		err = ftrace_set_filter(&site_ops, reader, strlen(reader), 1);
	if (!err)
		err = register_ftrace_function(&site_ops);
	if (err)
		ftrace_free_filter(&site_ops);
	return err;
}
module_init(site_init);

static void __exit site_exit(void)
{
	unregister_ftrace_function(&site_ops);
	ftrace_free_filter(&site_ops);
}
module_exit(site_exit);

MODULE_DESCRIPTION("Shows modules another first instruction of a function, for tests");
MODULE_LICENSE("GPL");
