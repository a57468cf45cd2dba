// SPDX-License-Identifier: GPL-2.0
/*
 * Holds functions of the kernel as a live patch does, with FTRACE_OPS_FL_IPMODIFY, and lets all their
 * calls pass.
 */
#include <linux/ftrace.h>
#include <linux/module.h>

static char *function = "";
module_param(function, charp, 0);
MODULE_PARM_DESC(function, "the name of the function");

static void notrace holder_call(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
}

static struct ftrace_ops holder_ops = { .func = holder_call, .flags = FTRACE_OPS_FL_IPMODIFY };

static int __init holder_init(void)
{
	int err = ftrace_set_filter(&holder_ops, function, strlen(function), 1);

	if (!err)
		err = register_ftrace_function(&holder_ops);
	if (err)
		ftrace_free_filter(&holder_ops);
	return err;
}
module_init(holder_init);

static void __exit holder_exit(void)
{
	unregister_ftrace_function(&holder_ops);
	ftrace_free_filter(&holder_ops);
}
module_exit(holder_exit);

MODULE_DESCRIPTION("Holds functions of the kernel, for tests");
MODULE_LICENSE("GPL");
