/* SPDX-License-Identifier: GPL-2.0 */
/* What is set up when the module loads, before its hooks, and taken down behind them. */
#ifndef TAO_LOAD_H
#define TAO_LOAD_H

int tao_load_namespaces(void);
void tao_unload_namespaces(void);
int tao_load_conns(void);
void tao_unload_conns(void);

#endif /* TAO_LOAD_H */
