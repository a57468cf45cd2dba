/* SPDX-License-Identifier: GPL-2.0 */
/* States that pin the module, and which socket has each: for a drain. */
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

#endif /* TAO_PIN_H */
