/* SPDX-License-Identifier: GPL-2.0 */
/* The sysctls of the machine. Those of a namespace are in net.c. */
#ifndef TAO_SYSCTL_H
#define TAO_SYSCTL_H

#include <linux/types.h>

bool tao_enabled(void);
int tao_sysctl_init(void);
void tao_sysctl_exit(void);

#endif /* TAO_SYSCTL_H */
