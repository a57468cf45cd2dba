/* SPDX-License-Identifier: GPL-2.0 */
/* What keeps the module: states that pin it, with the socket of each, and namespaces that hold it. */
#ifndef TAO_PIN_H
#define TAO_PIN_H

#include "tao.h"

int tao_pin(struct tao_conn *conn);
bool tao_unlist(struct tao_conn *conn);
void tao_unpin(struct tao_conn *conn);
void tao_set_sk(struct tao_conn *conn, struct sock *sk);
void tao_set_tw(struct tao_conn *conn, struct inet_timewait_sock *tw);
void tao_pin_no_more(void);
bool tao_is_draining(void);
struct sock *tao_any_pinned(bool *none);

void tao_hold_init(struct list_head *hold);
int tao_hold(struct list_head *hold);
void tao_let_go(struct list_head *hold);
void tao_let_go_of_all(void);

#endif /* TAO_PIN_H */
