// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers over the kernel's C interfaces.
