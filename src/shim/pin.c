// SPDX-License-Identifier: GPL-2.0
/*
 * What keeps the module: states pin it, which is not unloaded before their memory is freed, and
 * namespaces hold it while they have policies that require protection. A drain finds both here.
 */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <net/inet_timewait_sock.h>
#include <net/sock.h>
#include "pin.h"

/*
 * The states, until their memory is freed. Which socket has one is under the lock. Callbacks of
 * ftrace take it, too, with preemption disabled: also on PREEMPT_RT, nothing under it may sleep.
 */
static LIST_HEAD(tao_pins);
static LIST_HEAD(tao_holds);
static DEFINE_RAW_SPINLOCK(tao_pins_lock);
static bool tao_draining;

/* @conn joins the states that pin the module. It cannot while that is drained or unloaded. */
int tao_pin(struct tao_conn *conn)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	if (tao_draining || !try_module_get(THIS_MODULE))
		return -ENODEV;
	list_add(&conn->pin, &tao_pins);
	return 0;
}

/*
 * @conn leaves the list. The answer is whether it was there, so that the caller has to put the
 * reference to the module; a state that is parked was not.
 */
bool tao_unlist(struct tao_conn *conn)
{
	bool pinned;

	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	pinned = !list_empty(&conn->pin);
	list_del_init(&conn->pin);
	return pinned;
}

/* The same, and the module is let go of if @conn pinned it. */
void tao_unpin(struct tao_conn *conn)
{
	if (tao_unlist(conn))
		module_put(THIS_MODULE);
}

/* @sk has the state. NULL: the socket that had it goes. */
void tao_set_sk(struct tao_conn *conn, struct sock *sk)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	conn->sk = sk;
}

/* The TIME-WAIT socket @tw has the state. NULL: the one that had it goes. */
void tao_set_tw(struct tao_conn *conn, struct inet_timewait_sock *tw)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	conn->tw = tw;
}

/* From now on no state joins the others, for good. */
void tao_pin_no_more(void)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	WRITE_ONCE(tao_draining, true);
}

/* Whether no state can join the others. It is a hint: a moment later it may be so. */
bool tao_is_draining(void)
{
	return READ_ONCE(tao_draining);
}

/* How many states are looked at with interrupts off. */
#define TAO_LOOK_AT	64

/*
 * A socket, or a TIME-WAIT socket, that has an attached state, with a reference to it. NULL: there
 * is no state (@none), or those looked at are on their way, without a reference to be had. Others
 * are looked at the next time.
 */
struct sock *tao_any_pinned(bool *none)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	*none = list_empty(&tao_pins);
	for (int i = 0; i < TAO_LOOK_AT && !*none; i++) {
		struct tao_conn *conn = list_first_entry(&tao_pins, struct tao_conn, pin);

		list_move_tail(&conn->pin, &tao_pins);
		if (conn->sk && refcount_inc_not_zero(&conn->sk->sk_refcnt))
			return conn->sk;
		if (conn->tw && refcount_inc_not_zero(&conn->tw->tw_refcnt))
			return (struct sock *)conn->tw;
	}
	return NULL;
}

/* ---- namespaces ---- */

void tao_hold_init(struct list_head *hold)
{
	INIT_LIST_HEAD(hold);
}

/* A namespace holds the module from now on. It cannot while that is drained or unloaded. */
int tao_hold(struct list_head *hold)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	if (!list_empty(hold))
		return 0;
	if (tao_draining || !try_module_get(THIS_MODULE))
		return -ENODEV;
	list_add(hold, &tao_holds);
	return 0;
}

/* It does no more, if it did. */
void tao_let_go(struct list_head *hold)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	if (list_empty(hold))
		return;
	list_del_init(hold);
	module_put(THIS_MODULE);
}

/* No namespace does: a drain is over, and what is required stays shut until the hooks are gone. */
void tao_let_go_of_all(void)
{
	guard(raw_spinlock_irqsave)(&tao_pins_lock);
	while (!list_empty(&tao_holds)) {
		list_del_init(tao_holds.next);
		module_put(THIS_MODULE);
	}
}
