/* SPDX-License-Identifier: GPL-2.0 */
#ifndef TAO_HOOK_H
#define TAO_HOOK_H

#include <linux/ftrace.h>
#include <linux/jump_label.h>
#include <linux/rcupdate.h>
#include "tao.h"

/* Argument @n, from 0, of the call that a callback looks at. */
#define TAO_ARG(fregs, n, type)	((type)ftrace_regs_get_argument(fregs, n))

/* The most functions that share an ftrace_ops; of more each gets its own, with a warning. */
#define TAO_GROUP_MAX	24

/* A function of an ftrace_ops. They are in the order of their addresses; ULONG_MAX ends them. */
struct tao_place {
	unsigned long	ip;
	struct tao_hook	*hook;
};

/* Functions that share an ftrace_ops. @call is as &tao_hook.call, for all of them. */
struct tao_group {
	ftrace_func_t		call;
	bool			tried;
	struct ftrace_ops	ops;
	struct tao_place	places[TAO_GROUP_MAX + 1];
};

/**
 * struct tao_hook - a function of the kernel that is replaced for some of its callers
 * @name: of the function
 * @replacement: a function with the same prototype
 * @instead: name of a function of the kernel that is the replacement
 * @ours: whether this call, of which the arguments are in @fregs, goes to @replacement. It looks at
 *	them and changes nothing.
 * @before: the same, of a callback that may change something before the function runs. Its rules,
 *	which are those of @ours, too, hold on PREEMPT_RT as elsewhere:
 *
 *	- preemption may be off, since ftrace turns it off where a tracer has the function as well;
 *	- so it does not sleep, takes no lock but raw ones, and neither takes nor frees memory.
 *
 *	tao_ask() has a debug kernel look that they are kept.
 * @call: what ftrace calls, if not the general callback. It asks @ours itself. With a @group it is
 *	the group's.
 * @sleeps: @replacement may sleep, and ends with module_put(): nothing else might hold the module.
 * @group: what shares an ftrace_ops with it; NULL: nothing
 * @ip: where the kernel has the function
 * @ops: its own, for @place, which is used where there is no group, or the group is refused
 * @on: by which it is attached, @ops or the group's; NULL: it is not
 *
 * What is not given in the table is set when the module loads, before ftrace is told.
 */
struct tao_hook {
	const char		*name;
	void			*replacement;
	const char		*instead;
	union {
		bool		(*ours)(struct ftrace_regs *fregs);
		bool		(*before)(struct ftrace_regs *fregs);
	};
	ftrace_func_t		call;
	bool			sleeps;
	struct tao_group	*group;
	unsigned long		ip;
	struct ftrace_ops	ops;
	struct tao_place	place[2];
	struct ftrace_ops	*on;
};

/* An entry of the table: checks that the prototypes are the same. */
#define TAO_HOOK(function, instead, ...) {						\
	.name = #function,								\
	.replacement = (instead) + BUILD_BUG_ON_ZERO(!__same_type(function, *(instead))),\
	__VA_ARGS__									\
}

/*
 * The same where another function of the kernel, which need not be exported, takes the place. Whoever
 * has such an entry says beside it that the prototypes fit.
 */
#define TAO_HOOK_TO(function, other, ...) {						\
	.name = #function,								\
	.instead = #other,								\
	__VA_ARGS__									\
}

int tao_hooks_attach(struct tao_hook *hooks, size_t count);
void tao_hooks_detach(void);

/* On from the first socket that asks for authentication. */
DECLARE_STATIC_KEY_FALSE(tao_in_use);

/*
 * Asks a callback. Where the kernel looks for what sleeps, preemption is off meanwhile, and lockdep
 * is told so: it complains of each lock that would sleep on PREEMPT_RT, the allocator's among them.
 */
static __always_inline bool tao_ask(bool (*callback)(struct ftrace_regs *fregs),
				    struct ftrace_regs *fregs)
{
	bool watched = IS_ENABLED(CONFIG_DEBUG_ATOMIC_SLEEP) || IS_ENABLED(CONFIG_LOCKDEP);
	bool ours;

	if (watched)
		rcu_read_lock_sched();
	ours = callback(fregs);
	if (watched)
		rcu_read_unlock_sched();
	return ours;
}

/* Makes the call arrive at another function of the same prototype. */
static __always_inline void tao_redirect(struct ftrace_regs *fregs, void *replacement)
{
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)replacement);
}

/* The general callback, but also while tao_in_use is off: for what may turn it on. */
void tao_call_unused_too(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			 struct ftrace_regs *fregs);

#endif /* TAO_HOOK_H */
