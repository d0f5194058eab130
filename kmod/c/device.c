// SPDX-License-Identifier: GPL-2.0-only
/*
 * A character device that takes ioctls only (linux/miscdevice.h). The kernel
 * crate's wrapper sets neither the owner, without which the module could be
 * unloaded under an open file, nor the mode.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "hippos.h"

struct hippos_device {
	struct miscdevice misc;
	long (*call)(void *private, unsigned int number, unsigned long argument);
	void *private;
};

static long device_ioctl(struct file *file, unsigned int number, unsigned long argument)
{
	/* misc_open() has left it there. */
	struct miscdevice *misc = file->private_data;
	struct hippos_device *device = container_of(misc, struct hippos_device, misc);

	return device->call(device->private, number, argument);
}

static const struct file_operations device_operations = {
	.owner = THIS_MODULE,
	/* Keeps misc_open()'s private_data. */
	.open = nonseekable_open,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Mode 0600, root's. name must outlive the device. */
struct hippos_device *hippos_device_register(const char *name,
					     long (*call)(void *private, unsigned int number,
							  unsigned long argument),
					     void *private)
{
	struct hippos_device *device = kzalloc(sizeof(*device), GFP_KERNEL);
	int err;

	if (!device)
		return ERR_PTR(-ENOMEM);
	device->misc.minor = MISC_DYNAMIC_MINOR;
	device->misc.name = name;
	device->misc.fops = &device_operations;
	device->misc.mode = 0600;
	device->call = call;
	device->private = private;
	err = misc_register(&device->misc);
	if (err) {
		kfree(device);
		return ERR_PTR(err);
	}
	return device;
}

void hippos_device_unregister(struct hippos_device *device)
{
	misc_deregister(&device->misc);
	kfree(device);
}
