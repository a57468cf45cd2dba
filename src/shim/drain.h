/* SPDX-License-Identifier: GPL-2.0 */
/* The end of all that has an attached state, so that the module can be unloaded. */
#ifndef TAO_DRAIN_H
#define TAO_DRAIN_H

int tao_drain(void);

#endif /* TAO_DRAIN_H */
