// SPDX-License-Identifier: GPL-2.0-only
//! Datagrams: four ways to answer one, from the most frequent request to all others.

pub(crate) mod answer;
pub(crate) mod inline_get;
pub(crate) mod multi_get;
pub(crate) mod plan;
pub(crate) mod single_get;
pub(crate) mod worker;
