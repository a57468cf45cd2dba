/* SPDX-License-Identifier: GPL-2.0 */
#ifndef TAO_HOOK_H
#define TAO_HOOK_H

#include <linux/ftrace.h>
#include <linux/jump_label.h>
#include "tao.h"

/**
 * struct tao_hook - a function of the kernel that is replaced for some of its callers
 * @name: of the function; NULL ends a table
 * @ours: whether this call, of which the arguments are in @fregs, goes to @replacement. It may do
 *	things of its own before the function runs.
 * @replacement: a function with the same prototype
 * @ip: where ftrace finds the function; set when the module loads
 */
struct tao_hook {
	const char	*name;
	bool		(*ours)(struct ftrace_regs *fregs);
	void		*replacement;
	unsigned long	ip;
};

/* An entry of a table: checks that the prototypes are the same. */
#define TAO_HOOK(function, ours_test, instead) {					\
	.name = #function,								\
	.ours = ours_test,								\
	.replacement = (instead) + BUILD_BUG_ON_ZERO(!__same_type(function, *(instead))),\
}

/* Tables in seam.c. A function of one set cannot be in another: IPMODIFY is exclusive. */
extern struct tao_hook tao_hot_hooks[];
extern struct tao_hook tao_sockopt_hooks[];
extern struct tao_hook tao_cold_hooks[];

/* On from the first socket that asks for authentication. */
DECLARE_STATIC_KEY_FALSE(tao_in_use);

#endif /* TAO_HOOK_H */
