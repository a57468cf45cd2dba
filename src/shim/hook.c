// SPDX-License-Identifier: GPL-2.0
/*
 * How functions of the running kernel are replaced: ftrace with FTRACE_OPS_FL_IPMODIFY, the way
 * live patches do it.
 *
 * A callback looks at the arguments and either lets the call pass or makes it arrive at our
 * function of the same prototype. The original is never called through a pointer: the ENDBR of
 * most of these functions is sealed at boot (IBT). Where a replacement needs the original, it calls
 * it by its exported name or table, and the callback lets calls from this module pass.
 *
 * Three ftrace_ops, so that each pays only for itself: one function that every signed segment
 * meets, the socket option entry points, and all the rest, which is left alone until the first
 * socket asks for authentication.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "hook.h"

DEFINE_STATIC_KEY_FALSE(tao_in_use);

/* Neither SAVE_REGS nor RECURSION: the callbacks need arguments only and trace nothing. */
#define TAO_OPS_FLAGS	(FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT)

static __always_inline void tao_redirect(const struct tao_hook *hook, struct ftrace_regs *fregs,
					 unsigned long parent_ip)
{
	if (!within_module(parent_ip, THIS_MODULE) && hook->ours(fregs))
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)hook->replacement);
}

static void notrace tao_hot_call(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
				 struct ftrace_regs *fregs)
{
	const struct tao_hook *hook = tao_hot_hooks;

	if (hook->ours(fregs))
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)hook->replacement);
}

static void notrace tao_sockopt_call(unsigned long ip, unsigned long parent_ip,
				     struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	tao_redirect(&tao_sockopt_hooks[tao_sockopt_hooks[0].ip != ip], fregs, parent_ip);
}

static void notrace tao_cold_call(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	const struct tao_hook *hook;

	if (!static_branch_unlikely(&tao_in_use))
		return;
	for (hook = tao_cold_hooks; hook->name; hook++) {
		if (hook->ip == ip) {
			tao_redirect(hook, fregs, parent_ip);
			return;
		}
	}
}

static struct ftrace_ops tao_hot_ops = { .func = tao_hot_call, .flags = TAO_OPS_FLAGS };
static struct ftrace_ops tao_sockopt_ops = { .func = tao_sockopt_call, .flags = TAO_OPS_FLAGS };
static struct ftrace_ops tao_cold_ops = { .func = tao_cold_call, .flags = TAO_OPS_FLAGS };

#define TAO_HOOKS_MAX	24

static struct tao_hook_set {
	struct ftrace_ops *ops;
	struct tao_hook *hooks;
} tao_hook_sets[] = {
	{ &tao_cold_ops, tao_cold_hooks },
	{ &tao_hot_ops, tao_hot_hooks },
	{ &tao_sockopt_ops, tao_sockopt_hooks },
};

/*
 * Finds every function. kallsyms is not exported to modules, but a kprobe that is never armed tells
 * where its symbol is. They go all at once: that waits for a grace period.
 */
static int tao_locate(void)
{
	struct kprobe *found[TAO_HOOKS_MAX];
	size_t count = 0;
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tao_hook_sets) && !err; i++) {
		struct tao_hook *hook;

		for (hook = tao_hook_sets[i].hooks; hook->name && !err; hook++) {
			struct kprobe *probe = kzalloc(sizeof(*probe), GFP_KERNEL);

			if (!probe || WARN_ON(count == ARRAY_SIZE(found))) {
				kfree(probe);
				err = -ENOMEM;
				break;
			}
			probe->symbol_name = hook->name;
			probe->flags = KPROBE_FLAG_DISABLED;
			err = register_kprobe(probe);
			if (err) {
				pr_err("tcp_authopt: cannot hook %s: not in this kernel (%pe)\n",
				       hook->name, ERR_PTR(err));
				kfree(probe);
				break;
			}
			hook->ip = (unsigned long)probe->addr;
			found[count++] = probe;
		}
	}
	unregister_kprobes(found, count);
	while (count--)
		kfree(found[count]);
	return err;
}

static int tao_attach_set(struct tao_hook_set *set)
{
	struct tao_hook *hook;
	int err;

	for (hook = set->hooks; hook->name; hook++) {
		err = ftrace_set_filter_ip(set->ops, hook->ip, 0, 0);
		if (err) {
			pr_err("tcp_authopt: cannot hook %s: ftrace does not know it (%pe)\n",
			       hook->name, ERR_PTR(err));
			return err;
		}
	}
	err = register_ftrace_function(set->ops);
	if (err)
		pr_err("tcp_authopt: cannot hook %s%s: %s (%pe)\n", set->hooks->name,
		       set->hooks[1].name ? " and others" : "",
		       err == -EBUSY ? "a live patch or the like holds it, or ftrace is off" :
		       "ftrace refuses", ERR_PTR(err));
	return err;
}

static void tao_detach_set(struct tao_hook_set *set)
{
	unregister_ftrace_function(set->ops);
	ftrace_free_filter(set->ops);
}

/* Attaches every hook, or none. */
int tao_hooks_init(void)
{
	size_t i;
	int err;

	err = tao_locate();
	if (err)
		return err;
	for (i = 0; i < ARRAY_SIZE(tao_hook_sets); i++) {
		err = tao_attach_set(&tao_hook_sets[i]);
		if (err)
			goto undo;
	}
	return 0;
undo:
	ftrace_free_filter(tao_hook_sets[i].ops);
	while (i--)
		tao_detach_set(&tao_hook_sets[i]);
	return err;
}

/*
 * Detaches in reverse, socket options first, so that no socket gets state any more. When it
 * returns nobody is in a replacement: sleepers hold a module reference (see seam.c), tasks that
 * were preempted in one and softirqs are waited for here.
 */
void tao_hooks_exit(void)
{
	size_t i = ARRAY_SIZE(tao_hook_sets);

	while (i--)
		tao_detach_set(&tao_hook_sets[i]);
	synchronize_rcu_tasks();
	synchronize_rcu();
}
