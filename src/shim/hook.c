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
	/* All that calls an original is in .text. */
	if (!within_module_mem_type(parent_ip, THIS_MODULE, MOD_TEXT) && hook->ours(fregs))
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

/* Says why the module is not loaded: one line, whatever is undone after it. */
static int tao_refuse(const struct tao_hook *hook, const char *why, int err)
{
	pr_err("tcp_authopt: cannot hook %s: %s (%pe)\n", hook->name, why, ERR_PTR(err));
	return err;
}

/*
 * Finds a function: kallsyms is not exported to modules, but a kprobe that is never armed tells where
 * its symbol is.
 */
static int tao_locate(struct tao_hook *hook, struct kprobe *probe)
{
	int err;

	probe->symbol_name = hook->name;
	probe->flags = KPROBE_FLAG_DISABLED;
	err = register_kprobe(probe);
	if (err == -ENOENT)
		return tao_refuse(hook, "not in this kernel", err);
	if (err)
		return tao_refuse(hook, "the kprobe that is to find it is refused", err);
	hook->ip = (unsigned long)probe->addr;
	return 0;
}

/* Finds them all. Their probes go at once, since that waits for a grace period. */
static int tao_locate_all(void)
{
	struct kprobe *probes = kcalloc(TAO_HOOKS_MAX, sizeof(*probes), GFP_KERNEL);
	struct kprobe *found[TAO_HOOKS_MAX];
	size_t count = 0;
	int err = 0;

	if (!probes)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(tao_hook_sets) && !err; i++) {
		struct tao_hook *hook;

		for (hook = tao_hook_sets[i].hooks; hook->name && !err; hook++) {
			if (WARN_ON(count == TAO_HOOKS_MAX)) {
				err = -E2BIG;
				break;
			}
			err = tao_locate(hook, &probes[count]);
			if (err)
				break;
			found[count] = &probes[count];
			count++;
			/* What the kernel itself lacks is looked for in modules. */
			if (hook->ip >= MODULES_VADDR)
				err = tao_refuse(hook, "not in this kernel, but in a module",
						 -ENOENT);
		}
	}
	unregister_kprobes(found, count);
	kfree(probes);
	return err;
}

/*
 * BPF programs may be on the functions already. Those that call the function themselves (fexit) have
 * to be told that it may be another one, which ftrace does, and which fails for the moment while
 * somebody else attaches or detaches one.
 */
static int tao_register(struct ftrace_ops *ops)
{
	int tries = 100, err;

	do {
		err = register_ftrace_function(ops);
	} while (err == -EAGAIN && --tries);
	return err;
}

static void notrace tao_let_pass(unsigned long ip, unsigned long parent_ip,
				 struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

/* Whether ftrace takes these flags for this function alone. */
static int tao_try(const struct tao_hook *hook, unsigned long flags)
{
	static struct ftrace_ops ops = { .func = tao_let_pass };
	int err;

	ops.flags = flags;
	err = ftrace_set_filter_ip(&ops, hook->ip, 0, 1);
	if (!err)
		err = tao_register(&ops);
	if (!err)
		unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
	return err;
}

static const char *tao_reason(int err)
{
	return err == -EBUSY ? "a live patch or the like holds it" :
	       err == -ENODEV ? "ftrace has shut itself down" : "ftrace refuses";
}

/* ftrace has refused a set, for itself or for one of the functions, and does not say which. */
static int tao_explain(const struct tao_hook_set *set, int refused)
{
	const struct tao_hook *hook = set->hooks;
	int err = tao_try(hook, FTRACE_OPS_FL_PERMANENT);

	/* Nobody can hold a function against that. */
	if (err == -EBUSY)
		return tao_refuse(hook, "ftrace is off (kernel.ftrace_enabled)", err);
	for (; hook->name; hook++) {
		err = tao_try(hook, FTRACE_OPS_FL_IPMODIFY);
		if (err)
			return tao_refuse(hook, tao_reason(err), err);
	}
	return tao_refuse(set->hooks, "it or another one was held until a moment ago", refused);
}

static int tao_attach_set(struct tao_hook_set *set)
{
	struct tao_hook *hook;
	int err;

	for (hook = set->hooks; hook->name; hook++) {
		err = ftrace_set_filter_ip(set->ops, hook->ip, 0, 0);
		if (err)
			return tao_refuse(hook, err == -EINVAL ? "ftrace does not know it" :
					  tao_reason(err), err);
	}
	err = tao_register(set->ops);
	return err ? tao_explain(set, err) : 0;
}

static void tao_detach_set(struct tao_hook_set *set)
{
	unregister_ftrace_function(set->ops);
	ftrace_free_filter(set->ops);
}

/*
 * Attaches every hook, or none. What is undone needs no waiting for replacements: the socket options
 * come last, and before the first of them no socket has state, so that no call was redirected.
 */
int tao_hooks_init(void)
{
	size_t i;
	int err;

	err = tao_locate_all();
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
