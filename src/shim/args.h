/* SPDX-License-Identifier: GPL-2.0 */
/* The call that a callback of ftrace looks at. */
#ifndef TAO_ARGS_H
#define TAO_ARGS_H

#include <linux/ftrace.h>

/* Argument @n of it, from 0. */
#define TAO_ARG(fregs, n, type)	((type)ftrace_regs_get_argument(fregs, n))

#endif /* TAO_ARGS_H */
