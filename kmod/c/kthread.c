// SPDX-License-Identifier: GPL-2.0-only
/* Kernel threads (linux/kthread.h), and their CPU time (linux/kernel_stat.h). */
#include <linux/kernel_stat.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "hippos.h"

/* A thread of ours, for as long as its task is held. */
struct thread {
	struct list_head list;
	struct task_struct *task;
};

static LIST_HEAD(threads);
static DEFINE_SPINLOCK(threads_lock);
/* The CPU time of ended threads, in nanoseconds; under the lock. */
static u64 threads_gone;

/* Nanoseconds that a task has run: to its last tick or switch. */
static u64 runtime(const struct task_struct *task)
{
	return READ_ONCE(task->se.sum_exec_runtime);
}

/* Microseconds that all threads have run since the module was loaded. */
u64 hippos_threads_us(void)
{
	struct thread *thread;
	u64 sum;

	spin_lock(&threads_lock);
	sum = threads_gone;
	list_for_each_entry(thread, &threads, list)
		sum += runtime(thread->task);
	spin_unlock(&threads_lock);
	return div_u64(sum, NSEC_PER_USEC);
}

/* Microseconds that all CPUs have spent in softirqs since they were started. */
u64 hippos_softirq_us(void)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += kcpustat_cpu(cpu).cpustat[CPUTIME_SOFTIRQ];
	return div_u64(sum, NSEC_PER_USEC);
}

/* The process id of the thread that was started last, a TCP worker's: 0 if there is none. */
u32 hippos_threads_pid(void)
{
	struct thread *thread;
	u32 pid;

	spin_lock(&threads_lock);
	thread = list_first_entry_or_null(&threads, struct thread, list);
	pid = thread ? task_pid_nr(thread->task) : 0;
	spin_unlock(&threads_lock);
	return pid;
}

/*
 * Starts a thread, bound to a CPU unless that is negative. The task is held
 * until hippos_thread_stop().
 */
struct task_struct *hippos_thread_start(int (*run)(void *data), void *data, int cpu,
					const char *name)
{
	struct thread *thread = kmalloc(sizeof(*thread), GFP_KERNEL);
	struct task_struct *task;

	if (!thread)
		return ERR_PTR(-ENOMEM);
	task = kthread_create(run, data, "%s", name);
	if (IS_ERR(task)) {
		kfree(thread);
		return task;
	}
	get_task_struct(task);
	thread->task = task;
	spin_lock(&threads_lock);
	list_add(&thread->list, &threads);
	spin_unlock(&threads_lock);
	if (cpu >= 0)
		kthread_bind(task, cpu);
	wake_up_process(task);
	return task;
}

/*
 * Stops the thread, waits for its end and drops the task's reference. Returns the
 * result of run(), or -EINTR when it was never called.
 */
int hippos_thread_stop(struct task_struct *task)
{
	int result = kthread_stop(task);
	struct thread *thread;

	spin_lock(&threads_lock);
	list_for_each_entry(thread, &threads, list)
		if (thread->task == task)
			break;
	if (!list_entry_is_head(thread, &threads, list)) {
		list_del(&thread->list);
		threads_gone += runtime(task);
	} else {
		thread = NULL;
	}
	spin_unlock(&threads_lock);
	kfree(thread);
	put_task_struct(task);
	return result;
}

bool hippos_thread_should_stop(void)
{
	return kthread_should_stop();
}

/* Sleeps until the timeout ends (never, if negative) or the thread is stopped. */
void hippos_thread_sleep(long timeout_ms)
{
	set_current_state(TASK_IDLE);
	if (!kthread_should_stop())
		schedule_timeout(timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
						  msecs_to_jiffies(timeout_ms));
	__set_current_state(TASK_RUNNING);
}

#define WAKE_PENDING 0

/* Makes the calling thread the waker's, unless it has one, and holds it. */
bool hippos_waker_attach(struct hippos_waker *waker)
{
	get_task_struct(current);
	if (!cmpxchg(&waker->task, NULL, current))
		return true;
	put_task_struct(current);
	return false;
}

/* Called when no wake-up can come any more. The thread may have ended. */
void hippos_waker_detach(struct hippos_waker *waker)
{
	if (waker->task)
		put_task_struct(waker->task);
}

/* Any context. */
void hippos_waker_wake(struct hippos_waker *waker)
{
	struct task_struct *task = READ_ONCE(waker->task);

	if (!task)
		return;
	/*
	 * Pairs with hippos_waker_wait(), which clears the bit and then looks for
	 * work: without a barrier a bit that is about to be cleared could be read
	 * before the work is visible, and no task would be woken. test_bit() orders
	 * nothing; it only keeps the word of a waker that was woken from being written again.
	 *
	 * No test shows that this barrier is missing: loom's models are of Rust, and
	 * in a guest the work would have to stay in a CPU's store buffer for as long
	 * as the thread takes from the clearing to its look, where the waiter's own
	 * timeout hides the loss.
	 */
	smp_mb();
	if (!test_bit(WAKE_PENDING, &waker->pending) && !test_and_set_bit(WAKE_PENDING, &waker->pending))
		wake_up_process(task);
}

/* The waker's thread: sleeps as hippos_thread_sleep() unless it was woken since it last slept. */
void hippos_waker_wait(struct hippos_waker *waker, long timeout_ms)
{
	set_current_state(TASK_IDLE);
	if (!test_bit(WAKE_PENDING, &waker->pending) && !kthread_should_stop())
		schedule_timeout(timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
						  msecs_to_jiffies(timeout_ms));
	__set_current_state(TASK_RUNNING);
	/*
	 * Pairs with the barrier in hippos_waker_wake(): either it sees the bit
	 * cleared and sets it again, or its caller's work is visible after this.
	 */
	clear_bit(WAKE_PENDING, &waker->pending);
	smp_mb__after_atomic();
}
