// SPDX-License-Identifier: GPL-2.0
/*
 * How functions of the running kernel are replaced: ftrace with FTRACE_OPS_FL_IPMODIFY, the way
 * live patches do it.
 *
 * A callback looks at the arguments and either lets the call pass or makes it arrive at our
 * function of the same prototype. The original is never called through a pointer: the ENDBR of
 * most of these functions is sealed at boot (IBT). Where a replacement needs the original, it calls
 * it by its exported name or table, and the callback lets calls from this module pass. What takes the
 * place may be another function of the kernel's: ftrace goes there by a return, which IBT lets pass.
 *
 * A function that segments meet has an ftrace_ops of its own. Others share one, since ftrace takes
 * more than a tenth of a second to unregister each.
 */
#include <linux/delay.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>
#include "hook.h"

DEFINE_STATIC_KEY_FALSE(tao_in_use);

/* On when all hooks are attached: a load that fails has redirected no call. */
static DEFINE_STATIC_KEY_FALSE(tao_hooked);

/* Neither SAVE_REGS nor RECURSION: the callbacks need arguments only and trace nothing. */
#define TAO_OPS_FLAGS	(FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT)

/* The table that was given to tao_hooks_attach(). */
static struct tao_hook *tao_table;
static size_t tao_table_size;

#define tao_for_each_hook(hook) \
	for ((hook) = tao_table; (hook) < tao_table + tao_table_size; (hook)++)

/* ---- callbacks ---- */

/*
 * Which of the functions of an ftrace_ops is called. ftrace passes the address of the instruction
 * that it has changed. Where that is in a function depends on the machine, but the function that
 * begins last before it is the one.
 */
static __always_inline const struct tao_hook *tao_hook_at(unsigned long ip,
							  const struct ftrace_ops *ops)
{
	const struct tao_place *place = ops->private;

	while (ip >= place[1].ip)
		place++;
	return place->hook;
}

static __always_inline void tao_look(unsigned long ip, unsigned long parent_ip,
				     const struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	const struct tao_hook *hook = tao_hook_at(ip, ops);

	/* A replacement calls the original, from .text and not as a tail call. */
	if (!within_module_mem_type(parent_ip, THIS_MODULE, MOD_TEXT) &&
	    tao_ask(hook->ours, fregs) && (!hook->sleeps || try_module_get(THIS_MODULE)))
		tao_redirect(fregs, hook->replacement);
}

static void notrace tao_call(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	if (static_branch_unlikely(&tao_in_use))
		tao_look(ip, parent_ip, ops, fregs);
}

void notrace tao_call_unused_too(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
				 struct ftrace_regs *fregs)
{
	if (static_branch_likely(&tao_hooked))
		tao_look(ip, parent_ip, ops, fregs);
}

/* ---- finding ---- */

/* Says why the module is not loaded: one line, whatever is undone after it. */
static int tao_refuse(const char *name, const char *why, int err)
{
	pr_err("tcp_authopt: cannot hook %s: %s (%pe)\n", name, why, ERR_PTR(err));
	return err;
}

/*
 * Finds a function of the kernel: kallsyms is not exported to modules, but a kprobe that is never
 * armed tells where its symbol is. The next probe is used for it.
 */
static int tao_locate(struct kprobe *probes, size_t *count, const char *name, unsigned long *at)
{
	struct kprobe *probe = &probes[*count];
	int err;

	probe->symbol_name = name;
	probe->flags = KPROBE_FLAG_DISABLED;
	err = register_kprobe(probe);
	if (err == -ENOENT)
		return tao_refuse(name, "not in this kernel", err);
	if (err)
		return tao_refuse(name, "the kprobe that is to find it is refused", err);
	++*count;
	*at = (unsigned long)probe->addr;
	/* What the kernel itself lacks is looked for in modules. */
	if (*at >= MODULES_VADDR)
		return tao_refuse(name, "not in this kernel, but in a module", -ENOENT);
	return 0;
}

/* Finds what is hooked, and what takes its place. The probes go at once: that takes a grace period. */
static int tao_locate_all(void)
{
	size_t most = 2 * tao_table_size, count = 0;
	struct kprobe *probes = kcalloc(most, sizeof(*probes), GFP_KERNEL);
	struct kprobe **all = kcalloc(most, sizeof(*all), GFP_KERNEL);
	unsigned long instead = 0;
	struct tao_hook *hook;
	int err = -ENOMEM;

	if (!probes || !all)
		goto free;
	for (size_t i = 0; i < most; i++)
		all[i] = &probes[i];
	tao_for_each_hook(hook) {
		err = tao_locate(probes, &count, hook->name, &hook->ip);
		if (!err && hook->instead) {
			err = tao_locate(probes, &count, hook->instead, &instead);
			hook->replacement = (void *)instead;
		}
		if (err)
			break;
	}
	unregister_kprobes(all, count);
free:
	kfree(all);
	kfree(probes);
	return err;
}

/* ---- attaching ---- */

/*
 * BPF programs may be on the functions already. Those that call the function themselves (fexit)
 * have to be told that it may be another one, which ftrace does, and which fails for the moment
 * while somebody else attaches or detaches one. ftrace does so here only, and not where a function
 * is added to an ftrace_ops that is registered already: fexit programs on it would call past us.
 */
static int tao_register(struct ftrace_ops *ops)
{
	int tries = 100, err;

	do {
		err = register_ftrace_function(ops);
	} while (err == -EAGAIN && --tries);
	if (err)
		ftrace_free_filter(ops);
	return err;
}

static void tao_unregister(struct ftrace_ops *ops)
{
	unregister_ftrace_function(ops);
	ftrace_free_filter(ops);
}

static void notrace tao_let_pass(unsigned long ip, unsigned long parent_ip,
				 struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

/* Then it refuses whoever wants it to stay on, and does not look at the function. */
static bool tao_ftrace_is_off(const struct tao_hook *hook)
{
	static struct ftrace_ops ops = { .func = tao_let_pass, .flags = FTRACE_OPS_FL_PERMANENT };
	int err = ftrace_set_filter_ip(&ops, hook->ip, 0, 1);

	if (!err)
		err = tao_register(&ops);
	if (!err)
		tao_unregister(&ops);
	return err == -EBUSY;
}

static ftrace_func_t tao_call_of(const struct tao_hook *hook)
{
	return (hook->group ? hook->group->call : hook->call) ?: tao_call;
}

/* Attaches a hook by its own ftrace_ops, so that who is refused is known. */
static int tao_attach_hook(struct tao_hook *hook)
{
	int err;

	hook->place[0] = (struct tao_place) { hook->ip, hook };
	hook->place[1] = (struct tao_place) { ULONG_MAX };
	hook->ops = (struct ftrace_ops) {
		.func = tao_call_of(hook),
		.flags = TAO_OPS_FLAGS,
		.private = hook->place,
	};
	err = ftrace_set_filter_ip(&hook->ops, hook->ip, 0, 0);
	if (err == -EINVAL)
		return tao_refuse(hook->name, "ftrace does not know it", err);
	if (!err)
		err = tao_register(&hook->ops);
	if (!err)
		hook->on = &hook->ops;
	else if (err == -EBUSY && tao_ftrace_is_off(hook))
		tao_refuse(hook->name, "ftrace is off (kernel.ftrace_enabled)", err);
	else
		tao_refuse(hook->name, err == -EBUSY ? "a live patch or the like holds it" :
			   err == -ENODEV ? "ftrace has shut itself down" : "ftrace refuses",
			   err);
	return err;
}

/*
 * Attaches the hooks of a group together. If one of them is refused all are, and nothing tells which:
 * then none is attached here, and tao_attach_hook() does it or finds out.
 */
static void tao_attach_group(struct tao_group *group)
{
	struct tao_place *at, *end = group->places;
	struct tao_hook *hook;

	group->tried = true;
	group->ops.flags = TAO_OPS_FLAGS;
	group->ops.private = group->places;
	tao_for_each_hook(hook) {
		if (hook->group != group)
			continue;
		if (WARN_ON(end == group->places + TAO_GROUP_MAX) ||
		    ftrace_set_filter_ip(&group->ops, hook->ip, 0, 0))
			goto free;
		group->ops.func = tao_call_of(hook);
		for (at = end++; at > group->places && at[-1].ip > hook->ip; at--)
			*at = at[-1];
		*at = (struct tao_place) { hook->ip, hook };
	}
	end->ip = ULONG_MAX;
	if (tao_register(&group->ops))
		return;
	while (end-- > group->places)
		end->hook->on = &group->ops;
	return;
free:
	ftrace_free_filter(&group->ops);
}

/* Detaches what is attached, in reverse. */
static void tao_detach_all(void)
{
	for (size_t i = tao_table_size; i--;) {
		struct ftrace_ops *ops = tao_table[i].on;
		struct tao_hook *hook;

		if (!ops)
			continue;
		tao_unregister(ops);
		tao_for_each_hook(hook) {
			if (hook->on == ops)
				hook->on = NULL;
		}
	}
}

/* ---- proof ---- */

enum { TAO_CALL_INSN = 0xe8, TAO_CALL_SIZE = 5 };

/*
 * Whether calls of a function come to us: its patch site calls the trampoline of its ftrace_ops, or
 * where others have the function, too, a caller in the kernel's own text that goes through all of
 * them. Trampolines of others are where modules are. Only of x86-64 it is known here what a site
 * looks like; the address that a kprobe has given is then that of the site.
 */
static bool tao_is_armed(const struct tao_hook *hook)
{
	u8 site[TAO_CALL_SIZE];
	unsigned long to;

	if (!IS_ENABLED(CONFIG_X86_64))
		return true;
	if (copy_from_kernel_nofault(site, (void *)hook->ip, sizeof(site)) ||
	    site[0] != TAO_CALL_INSN)
		return false;
	to = hook->ip + sizeof(site) + (long)(s32)get_unaligned_le32(&site[1]);
	return to == hook->on->trampoline || to < MODULES_VADDR;
}

/* Somebody who attaches a tracer may be in the middle of changing the site. */
static int tao_prove(const struct tao_hook *hook)
{
	for (int tries = 100; !tao_is_armed(hook); msleep(1)) {
		if (!--tries)
			return tao_refuse(hook->name, "its calls do not come here", -ENXIO);
	}
	return 0;
}

/*
 * Attaches every hook of a table, in its order, a group where its first hook is; or none. What is
 * undone needs no waiting for replacements: only socket options give a socket state, and their calls
 * are not redirected before the end.
 */
int tao_hooks_attach(struct tao_hook *hooks, size_t count)
{
	struct tao_hook *hook;
	int err;

	tao_table = hooks;
	tao_table_size = count;
	err = tao_locate_all();
	if (err)
		return err;
	tao_for_each_hook(hook) {
		if (hook->group && !hook->group->tried)
			tao_attach_group(hook->group);
		if (!hook->on)
			err = tao_attach_hook(hook);
		if (err)
			goto undo;
	}
	tao_for_each_hook(hook) {
		err = tao_prove(hook);
		if (err)
			goto undo;
	}
	static_branch_enable(&tao_hooked);
	return 0;
undo:
	tao_detach_all();
	return err;
}

/*
 * Detaches in reverse, socket options first, so that no socket gets state any more. When it
 * returns nobody is in a replacement: sleepers hold a module reference (see tao_look()), tasks that
 * were preempted in one and softirqs are waited for here.
 */
void tao_hooks_detach(void)
{
	tao_detach_all();
	synchronize_rcu_tasks();
	synchronize_rcu();
}
