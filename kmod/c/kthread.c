// SPDX-License-Identifier: GPL-2.0-only
/* Kernel threads (linux/kthread.h). */
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/sched/task.h>

#include "hippos.h"

/*
 * Starts a thread, bound to a CPU unless that is negative. The task is held
 * until hippos_thread_stop().
 */
struct task_struct *hippos_thread_start(int (*run)(void *data), void *data, int cpu,
					const char *name)
{
	struct task_struct *task = kthread_create(run, data, "%s", name);

	if (IS_ERR(task))
		return task;
	get_task_struct(task);
	if (cpu >= 0)
		kthread_bind(task, cpu);
	wake_up_process(task);
	return task;
}

/*
 * Asks the thread to end, waits for it and lets go of it. What run()
 * returned, or -EINTR when it was never called.
 */
int hippos_thread_stop(struct task_struct *task)
{
	int result = kthread_stop(task);

	put_task_struct(task);
	return result;
}

bool hippos_thread_should_stop(void)
{
	return kthread_should_stop();
}

/* Sleeps until the time is over (never, if negative) or someone wants the thread to stop. */
void hippos_thread_sleep(long timeout_ms)
{
	set_current_state(TASK_IDLE);
	if (!kthread_should_stop())
		schedule_timeout(timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
						  msecs_to_jiffies(timeout_ms));
	__set_current_state(TASK_RUNNING);
}

#define RUNG 0

/* Makes the calling thread the bell's, unless it has one, and holds it. */
bool hippos_bell_attach(struct hippos_bell *bell)
{
	get_task_struct(current);
	if (!cmpxchg(&bell->task, NULL, current))
		return true;
	put_task_struct(current);
	return false;
}

/* When nobody rings any more. The thread may be gone. */
void hippos_bell_detach(struct hippos_bell *bell)
{
	if (bell->task)
		put_task_struct(bell->task);
}

/* Any context. */
void hippos_bell_ring(struct hippos_bell *bell)
{
	struct task_struct *task = READ_ONCE(bell->task);

	if (task && !test_bit(RUNG, &bell->rung) && !test_and_set_bit(RUNG, &bell->rung))
		wake_up_process(task);
}

/* The bell's thread: sleeps as hippos_thread_sleep() unless it was rung since it last slept. */
void hippos_bell_wait(struct hippos_bell *bell, long timeout_ms)
{
	set_current_state(TASK_IDLE);
	if (!test_bit(RUNG, &bell->rung) && !kthread_should_stop())
		schedule_timeout(timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
						  msecs_to_jiffies(timeout_ms));
	__set_current_state(TASK_RUNNING);
	/* Pairs with the ringer's: what it did before is seen after. */
	clear_bit(RUNG, &bell->rung);
	smp_mb__after_atomic();
}
